-- streamerson:pending:1
local call, argv, keys = redis.call, ARGV, KEYS
local clock

-- Milliseconds since 1970, the same throughout the script.
local function now()
  if not clock then
    local time = call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

-- A number that grows, to tell what was made under a name from what is made under it later.
local function stamp()
  local time = call('TIME')
  return string.format('%016.0f', time[1] * 1000000 + time[2])
end
-- What is delivered and not settled. KEYS: stream, delays. ARGV: group, first entry, most.
-- Replies {{entry, member, idle ms, delivery count, ms until it is due again or -1}, ...}.
local stream, delays, group = keys[1], keys[2], argv[1]
local held = redis.pcall('XPENDING', stream, group, argv[2], '+', argv[3])
if held.err then
  return held
end
for _, pending in ipairs(held) do
  local due = call('ZSCORE', delays, pending[1])
  pending[5] = due and math.max(0, due - now()) or -1
end
return held

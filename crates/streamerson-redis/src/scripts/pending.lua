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

-- Ends deliveries. KEYS: stream, delays, then the streams of all outputs.
-- ARGV: group, member, inbox bound, inbox ttl in ms, fence lease or empty, fence epoch, then per delivery one of
--   C, entry, count of outputs, outputs
--   E, entry, key of the effect, ms to remember it, count of outputs, outputs
--   R, entry, delay in ms, attempt
-- Replies with 1 (settled) or 0 (fenced) per delivery.
--
-- The fence of a delivery is what XACK answers: only its first settlement is told 1, and only that may write.
-- Redis does not undo what a script did before it failed, so all that can be refused is refused before the first
-- write. An XACK makes the script a writing one, and a writing script is not stopped by maxmemory.
local call, argv, keys = redis.call, ARGV, KEYS
local stream, delays = keys[1], keys[2]
local group, member = argv[1], argv[2]

local made
local function tools()
  made = made or seldom()
  return made
end

for k = 3, #keys do
  local kind = call('TYPE', keys[k]).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE the key ' .. keys[k] .. ' of an output holds a ' .. kind)
  end
end
local refused = argv[5] ~= '' and tools().fenced(stream, member, argv[5], argv[6])
if refused then
  return refused
end

local results, inboxes = {}, {}
local n, i, last = 0, 7, #argv
local delayed = call('EXISTS', delays) == 1
local exists

while i <= last do
  local kind, entry = argv[i], argv[i + 1]
  local result = 0
  if kind ~= 'R' and call('XACK', stream, group, entry) == 1 then
    result = 1
    if delayed then
      call('ZREM', delays, entry)
    end
  elseif not exists then
    -- XACK answers 0 for a group that does not exist, too.
    local summary = redis.pcall('XPENDING', stream, group)
    if summary.err then
      return summary
    end
    exists = true
  end
  if kind == 'R' then
    result = tools().retry(stream, delays, group, member, entry, argv[i + 2], argv[i + 3])
    delayed = true
    i = i + 4
  else
    local count_at = kind == 'E' and i + 4 or i + 2
    local count, o = tonumber(argv[count_at]), count_at + 1
    if kind == 'E' and result == 1 then
      tools().effect(stream, group, o, count, argv[i + 2], argv[i + 3])
    end
    for _ = 1, count do
      local terms = argv[o + 1]
      if kind == 'C' and result == 1 then
        if terms == '2' then
          tools().append(o)
        else
          local key = keys[tonumber(argv[o])]
          if terms == '1' then
            inboxes[key] = true
          end
          call('XADD', key, '*', 'id', argv[o + 2], 'type', argv[o + 3], 'corr', argv[o + 4],
            'reply', argv[o + 5], 'meta', argv[o + 6], 'data', argv[o + 7])
        end
      end
      o = o + (terms == '2' and 11 or 8)
    end
    i = o
  end
  n = n + 1
  results[n] = result
end

-- Once per inbox and call: a bound with every XADD costs more than the acknowledgement.
for inbox in pairs(inboxes) do
  call('XTRIM', inbox, 'MAXLEN', '~', argv[3])
  call('PEXPIRE', inbox, argv[4])
end
if made then
  made.bound_inboxes(argv[3], argv[4])
end
return results

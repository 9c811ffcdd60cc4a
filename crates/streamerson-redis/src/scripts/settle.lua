-- streamerson:settle:1
-- Ends deliveries. KEYS: stream, delays, then the streams of all outputs.
-- ARGV: group, member, inbox bound, inbox ttl in ms, then per delivery either
--   C, entry, count of outputs, and per output: number of its key, 1 for an inbox, id, type, corr, reply, meta, data
--   R, entry, delay in ms
-- Replies with 1 (settled) or 0 (fenced) per delivery.
--
-- The fence is what XACK answers: only the first settlement of a delivery is told 1, and only it may write.
-- Redis does not undo what a script did before it failed, so all that can be refused is refused before the first
-- write. An XACK makes the script a writing one, and a writing script is not stopped by maxmemory.
local call, argv, keys = redis.call, ARGV, KEYS
local stream, delays = keys[1], keys[2]
local group, member, bound, ttl = argv[1], argv[2], argv[3], argv[4]

for k = 3, #keys do
  local kind = call('TYPE', keys[k]).ok
  if kind ~= 'stream' and kind ~= 'none' then
    return redis.error_reply('WRONGTYPE the key ' .. keys[k] .. ' of an output holds a ' .. kind)
  end
end

local results, inboxes = {}, {}
local n, i, last = 0, 5, #argv
local delayed = call('EXISTS', delays) == 1
local exists, now

while i <= last do
  local kind, entry = argv[i], argv[i + 1]
  local result = 0
  if kind == 'C' then
    local count = tonumber(argv[i + 2])
    i = i + 3
    if call('XACK', stream, group, entry) == 1 then
      result = 1
      if delayed then
        call('ZREM', delays, entry)
      end
      for o = i, i + (count - 1) * 8, 8 do
        local key = keys[tonumber(argv[o])]
        if argv[o + 1] == '1' then
          inboxes[key] = true
        end
        call('XADD', key, '*', 'id', argv[o + 2], 'type', argv[o + 3], 'corr', argv[o + 4],
          'reply', argv[o + 5], 'meta', argv[o + 6], 'data', argv[o + 7])
      end
    elseif not exists then
      -- XACK answers 0 for a group that does not exist, too.
      local summary = redis.pcall('XPENDING', stream, group)
      if summary.err then
        return summary
      end
      exists = true
    end
    i = i + count * 8
  else
    local held = redis.pcall('XPENDING', stream, group, entry, entry, 1)
    if held.err then
      return held
    end
    exists = true
    if held[1] and held[1][2] == member then
      if not now then
        local time = call('TIME')
        now = time[1] * 1000 + math.floor(time[2] / 1000)
      end
      call('ZADD', delays, string.format('%.0f', now + argv[i + 2]), entry)
      delayed = true
      result = 1
    end
    i = i + 3
  end
  n = n + 1
  results[n] = result
end

-- Once per inbox and call: a bound with every XADD costs more than the acknowledgement.
for inbox in pairs(inboxes) do
  call('XTRIM', inbox, 'MAXLEN', '~', bound)
  call('PEXPIRE', inbox, ttl)
end
return results

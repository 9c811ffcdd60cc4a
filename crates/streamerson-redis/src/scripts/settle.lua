-- Ends deliveries. KEYS: stream, delays, then the streams of all outputs.
-- ARGV: group, member, inbox bound, inbox ttl in ms, fence lease or empty, fence epoch, then per delivery one of
--   C, entry, count of outputs, outputs
--   E, entry, key of the effect, ms to remember it, count of outputs, outputs
--   R, entry, delay in ms, attempt
-- Replies with 1 (settled) or 0 (fenced) per delivery.
--
-- The fence of a delivery is what XACK answers: only its first settlement is told 1, and only that may write.
-- An XACK makes the script a writing one, and a writing script is not stopped by maxmemory.
local stream, delays = keys[1], keys[2]
local group, member = argv[1], argv[2]
local refused = refused_keys(3) or fenced(stream, member, argv[5], argv[6])
if refused then
  return refused
end

local delayed = call('EXISTS', delays) == 1
local effects

-- Of the completions with the same key, the first has its outputs; later ones only answer, with what the first answered.
local function effect(o, count, key, keep)
  if not effects then
    local _, _, generation = recall(stream, group, 'group:')
    effects = stream .. ':done:' .. group .. ':' .. (generation or '') .. ':'
  end
  local first = call('GET', effects .. key)
  local answer = first or ''
  for _ = 1, count do
    local is_answer = argv[o + 1] == '1'
    if is_answer and answer == '' then
      answer = #argv[o + 6] .. ':' .. argv[o + 6] .. argv[o + 7]
    elseif is_answer and first then
      local length, rest = string.match(answer, '^(%d+):(.*)$')
      argv[o + 6], argv[o + 7] = string.sub(rest, 1, length), string.sub(rest, length + 1)
    end
    if is_answer or not first then
      append(o)
    end
    o = after(o)
  end
  if not first then
    call('SET', effects .. key, answer, 'PX', keep)
  elseif first ~= answer then
    call('SET', effects .. key, answer, 'KEEPTTL')
  end
end

-- Only the holder may ask for another try, and only of the attempt it was given.
local function retry(entry, delay, attempt)
  local held = call('XPENDING', stream, group, entry, entry, 1)[1]
  if not held or held[2] ~= member or held[4] ~= tonumber(attempt) then
    return 0
  end
  call('ZADD', delays, string.format('%.0f', now() + delay), entry)
  delayed = true
  return 1
end

local results = {}
local n, i, last = 0, 7, #argv
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
    result = retry(entry, argv[i + 2], argv[i + 3])
    i = i + 4
  else
    local count_at = kind == 'E' and i + 4 or i + 2
    local count = tonumber(argv[count_at])
    local o = count_at + 1
    if kind == 'E' and result == 1 then
      effect(o, count, argv[i + 2], argv[i + 3])
    end
    for _ = 1, count do
      if kind == 'C' and result == 1 then
        append(o)
      end
      o = after(o)
    end
    i = o
  end
  n = n + 1
  results[n] = result
end

bound_inboxes(argv[3], argv[4])
return results

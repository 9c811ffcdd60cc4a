-- streamerson:settle:2
-- What few calls need is made only when one does: making functions takes longer than settling.
local function seldom()
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
-- A lease is stored as "EPOCH END TTL HOLDER", times in ms.
-- Answers the epoch, the holder and the ms that remain. A clock that went back must not prolong a lease: nobody is
-- given more than the time he asked for.
local function lease(stream, name)
  local stored = call('HGET', stream .. ':leases', name)
  if not stored then
    return 0, '', 0, 0
  end
  local epoch, ends, ttl, holder = string.match(stored, '^(%d+) (%d+) (%d+) (.*)$')
  return tonumber(epoch), holder, math.min(ends - now(), tonumber(ttl)), tonumber(ends)
end

-- What is answered to a member that does not hold the lease at this epoch any more. Without a name there is no fence. Without
-- a member it is for whoever was given that epoch: there is one.
local function fenced(stream, member, name, epoch)
  if name == '' then
    return nil
  end
  local current, holder, remaining = lease(stream, name)
  if remaining <= 0 or holder ~= (member or holder) or current ~= tonumber(epoch) then
    local by = member and ' by ' .. member or ''
    return redis.error_reply('FENCED the lease ' .. name .. ' is not held' .. by .. ' at epoch ' .. epoch)
  end
end
-- An output is eight arguments: number of its key, terms, id, type, corr, reply, meta, data. Terms are 0: none; 1: the key
-- is an inbox; 2: three more follow, due time in ms or empty, key for once or empty, ms to remember that key.
local inboxes = {}

-- Redis does not undo what a script did before it failed, so what can be refused is refused before the first write.
local function refused_keys(first)
  for k = first, #keys do
    local kind = call('TYPE', keys[k]).ok
    if kind ~= 'stream' and kind ~= 'none' then
      return redis.error_reply('WRONGTYPE the key ' .. keys[k] .. ' of an output holds a ' .. kind)
    end
  end
end

local function after(o)
  return o + (argv[o + 1] == '2' and 11 or 8)
end

local function add(key, o)
  return call('XADD', key, '*', 'id', argv[o + 2], 'type', argv[o + 3], 'corr', argv[o + 4],
    'reply', argv[o + 5], 'meta', argv[o + 6], 'data', argv[o + 7])
end

-- The first key of a topic's memory: it changes with the topic, so that a new one does not remember what the old one did.
local function memory(key)
  local generation = call('HGET', key .. ':topic', 'generation')
  if not generation then
    generation = stamp()
    call('HSET', key .. ':topic', 'generation', generation)
  end
  return key .. ':sent:' .. generation .. ':'
end

-- Kept aside as a MessagePack array: first what makes it unique and keeps the order of equal times, then the six fields.
local function add_later(key, o, due)
  if call('EXISTS', key) == 0 then
    -- A topic begins with its first message, also with one that waits.
    call('XGROUP', 'CREATE', key, '~', '$', 'MKSTREAM')
    call('XGROUP', 'DESTROY', key, '~')
  end
  local order = stamp() .. string.format('%08d', o)
  call('ZADD', key .. ':later', due, cmsgpack.pack({ order, argv[o + 2], argv[o + 3], argv[o + 4], argv[o + 5],
    argv[o + 6], argv[o + 7] }))
  return '0-0'
end

local function add_on_terms(key, o)
  local due, once, keep = argv[o + 8], argv[o + 9], argv[o + 10]
  local sent = once ~= '' and memory(key) .. once
  local id = sent and call('GET', sent)
  if id then
    return id
  end
  if due ~= '' and tonumber(due) > now() then
    id = add_later(key, o, due)
  else
    id = add(key, o)
  end
  if sent then
    call('SET', sent, id, 'PX', keep)
  end
  return id
end

-- Appends the output that begins at argument o, and answers its position.
local function append(o)
  local key, terms = keys[tonumber(argv[o])], argv[o + 1]
  if terms == '2' then
    return add_on_terms(key, o)
  end
  if terms == '1' then
    inboxes[key] = true
  end
  return add(key, o)
end

-- Once per inbox and call: a bound with every XADD costs more than the acknowledgement.
local function bound_inboxes(bound, ttl)
  for inbox in pairs(inboxes) do
    call('XTRIM', inbox, 'MAXLEN', '~', bound)
    call('PEXPIRE', inbox, ttl)
  end
end
-- What is stored of a group, in the hash of its topic, as "CHECKPOINT CLOCK GENERATION BEHIND": everything up to the
-- checkpoint is settled; when that was written (ms); when the group began (a stamp); until when the clock, which went
-- back, is behind what it said before. Of a removed group, the same is kept for members that go on.
local function recall(stream, group, kind)
  local stored = call('HGET', stream .. ':topic', kind .. group)
  if not stored then
    return nil
  end
  local checkpoint, written, generation, behind = string.match(stored, '^(%S+) (%d+) (%d+) (%d+)$')
  return checkpoint, tonumber(written), generation, tonumber(behind)
end

local function remember(stream, group, checkpoint, generation, behind)
  call('HSET', stream .. ':topic', 'group:' .. group,
    string.format('%s %.0f %s %.0f', checkpoint, now(), generation or stamp(), behind or 0))
end

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function is_before(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

-- The position before this one.
local function before(id)
  local ms, seq = parts(id)
  if seq > 0 then
    return string.format('%.0f-%.0f', ms, seq - 1)
  elseif ms > 0 then
    return string.format('%.0f-18446744073709551615', ms - 1)
  end
  return id
end

local function field(info, name)
  for i = 1, #info, 2 do
    if info[i] == name then
      return info[i + 1]
    end
  end
end

-- How far the group was delivered, and what else Redis tells of it; nil without a group. Answers refusals that are none of a missing key.
local function delivered(stream, group)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then
    if string.find(groups.err, 'no such key', 1, true) then
      return nil
    end
    return nil, groups
  end
  for _, info in ipairs(groups) do
    if field(info, 'name') == group then
      return field(info, 'last-delivered-id'), nil, info
    end
  end
end

-- Up to where all is settled, of a group delivered up to `last`.
local function settled(stream, group, last)
  local summary = call('XPENDING', stream, group)
  if summary[1] > 0 and is_before(before(summary[2]), last) then
    return before(summary[2])
  end
  return last
end

-- Gives everything the member holds to whoever asks next. Answers how many that was.
local function give_back(stream, delays, group, member)
  local released, start, due = 0, '-', string.format('%.0f', now())
  repeat
    local page = call('XPENDING', stream, group, start, '+', 128, member)
    for _, pending in ipairs(page) do
      call('XCLAIM', stream, group, '~released', 0, pending[1], 'JUSTID')
      call('ZADD', delays, 'NX', due, pending[1])
      start = '(' .. pending[1]
    end
    released = released + #page
  until #page == 0
  return released
end
local effects

-- Of the completions with the same key, the first has its outputs; later ones only answer, with what the first answered.
local function effect(stream, group, o, count, key, keep)
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
local function retry(stream, delays, group, member, entry, delay, attempt)
  local held = call('XPENDING', stream, group, entry, entry, 1)[1]
  if not held or held[2] ~= member or held[4] ~= tonumber(attempt) then
    return 0
  end
  call('ZADD', delays, string.format('%.0f', now() + delay), entry)
  return 1
end

return { fenced = fenced, append = append, effect = effect, retry = retry, bound_inboxes = bound_inboxes }
end
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

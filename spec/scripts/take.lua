-- streamerson:take:1
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
-- Takes one entry out of a stream, and appends in the same step. KEYS: stream, then the streams of all outputs.
-- ARGV: entry, inbox bound, inbox ttl in ms, outputs. Replies 1, or 0: it was not there, and nothing happened.
local stream, entry = keys[1], argv[1]
local refused = refused_keys(1)
if refused then
  return refused
end
if call('XDEL', stream, entry) == 0 then
  return 0
end
-- A group that held it has nothing left to do.
for _, info in ipairs(call('XINFO', 'GROUPS', stream)) do
  local group = field(info, 'name')
  call('XACK', stream, group, entry)
  call('ZREM', stream .. ':delay:' .. group, entry)
end
local o = 4
while o <= #argv do
  append(o)
  o = after(o)
end
bound_inboxes(argv[2], argv[3])
return 1

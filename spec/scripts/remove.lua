-- streamerson:remove:1
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
-- Removes what is no longer wanted. KEYS: stream. ARGV: one of
--   topic: replies 1, or 0: there was none
--   group, group: replies 1, or 0: there was none
--   members, group, ms of silence: replies the names of the members that went
local stream, what, group = keys[1], argv[1], argv[2]

if what == 'topic' then
  local gone = call('EXISTS', stream, stream .. ':topic', stream .. ':later') > 0 and 1 or 0
  for _, name in ipairs(call('HKEYS', stream .. ':topic')) do
    local of = string.match(name, '^group:(.*)$')
    if of then
      call('DEL', stream .. ':delay:' .. of)
    end
  end
  local epoch = call('HGET', stream .. ':leases', '~epoch')
  -- What the old topic remembered is under the name of its generation, and expires.
  call('UNLINK', stream, stream .. ':topic', stream .. ':later', stream .. ':leases')
  if epoch then
    -- Should it come again, epochs go on, also when the clock was set back meanwhile.
    call('HSET', stream .. ':leases', '~epoch', epoch)
    call('EXPIRE', stream .. ':leases', 7 * 24 * 60 * 60)
  end
  return gone
end

if what == 'group' then
  local last, failed = delivered(stream, group)
  if failed then
    return failed
  end
  call('DEL', stream .. ':delay:' .. group)
  call('HDEL', stream .. ':topic', 'missed:' .. group)
  if last then
    local _, _, generation, behind = recall(stream, group, 'group:')
    remember(stream, group, settled(stream, group, last), generation, behind)
  end
  local known = call('HGET', stream .. ':topic', 'group:' .. group)
  if known then
    call('HSET', stream .. ':topic', 'removed:' .. group, known)
    call('HDEL', stream .. ':topic', 'group:' .. group)
  end
  return last and call('XGROUP', 'DESTROY', stream, group) or 0
end

local members = redis.pcall('XINFO', 'CONSUMERS', stream, group)
if members.err then
  return members
end
local gone = {}
for _, info in ipairs(members) do
  local name = field(info, 'name')
  -- Removing a consumer forgets what it holds.
  if name ~= '~released' and field(info, 'pending') == 0 and field(info, 'idle') >= tonumber(argv[3]) then
    call('XGROUP', 'DELCONSUMER', stream, group, name)
    gone[#gone + 1] = name
  end
end
table.sort(gone)
return gone

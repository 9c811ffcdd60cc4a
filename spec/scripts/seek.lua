-- streamerson:seek:2
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
-- Lets a group go on elsewhere; creates it, and its stream, if needed. KEYS: stream. ARGV: group, where (an entry, or $),
-- fence lease or empty, fence epoch.
-- What comes again is taken from who holds it: XREADGROUP would give it to another and forget how often it was delivered, but
-- the settlement of the one would end that of the other.
local stream, group, start = keys[1], argv[1], argv[2]
local refused = fenced(stream, nil, argv[3], argv[4])
if refused then
  return refused
end
local last, failed = delivered(stream, group)
if failed then
  return failed
end
if last then
  call('XGROUP', 'SETID', stream, group, start)
else
  call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
end
local reached = delivered(stream, group)
if last and is_before(reached, last) then
  repeat
    local held = call('XPENDING', stream, group, '(' .. reached, '+', 1000)
    for _, pending in ipairs(held) do
      call('XACK', stream, group, pending[1])
      call('ZREM', stream .. ':delay:' .. group, pending[1])
    end
  until #held == 0
end
local _, _, generation, behind = recall(stream, group, 'group:')
remember(stream, group, settled(stream, group, reached), generation, behind)
return 1

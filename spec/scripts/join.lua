-- streamerson:join:1
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
-- Entries that were removed before the group was given them. Redis counts, since 7.0, what was added to a stream and what a
-- group was given. A server that has been started again or that took over may have lost count of the latter: so what was
-- missed is kept in the hash of the topic as "RUN COUNT", for one run of a server, and only what is added to it in that run is told.
local function run()
  -- Not everybody may ask.
  local server = redis.pcall('INFO', 'server')
  return type(server) == 'string' and string.match(server, 'run_id:(%w+)') or '-'
end

-- A new group has missed nothing.
local function missed_nothing(stream, group)
  call('HSET', stream .. ':topic', 'missed:' .. group, run() .. ' 0')
end

-- How many more were missed, at least: those of a group in the middle of the stream show when it has come to the end.
local function missed(stream, group, last, info)
  local read, lag = field(info, 'entries-read'), field(info, 'lag')
  if not read or not lag then
    return 0
  end
  -- What it has not been given is all that is there, or nothing.
  local length, left = call('XLEN', stream), 0
  if lag > 0 and #call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1) > 0 then
    left = length
    if lag < left then
      return 0
    end
  end
  local run, stored = run(), call('HGET', stream .. ':topic', 'missed:' .. group) or ''
  -- Some say of an empty stream that no group lags behind.
  if lag == 0 and length > 0 and stored == run .. ' 0' then
    return 0
  end
  local about = call('XINFO', 'STREAM', stream)
  local count = math.max(0, field(about, 'entries-added') - left - read)
  local known_run, known = string.match(stored, '^(%S+) (%d+)$')
  known = tonumber(known) or 0
  local more = math.max(0, count - known)
  if run ~= known_run or run == '-' or field(about, 'max-deleted-entry-id') ~= '0-0' then
    -- Miscounted, or taken out one by one, by somebody who had a reason.
    more = 0
  elseif left > 0 then
    count = math.max(count, known)
  end
  call('HSET', stream .. ':topic', 'missed:' .. group, string.format('%s %.0f', run, count))
  return more
end
-- Makes a member known, and creates its group where there is none. KEYS: stream, delays.
-- ARGV: group, member, where a new group begins (an entry, or $), fence lease or empty, fence epoch, 1 if the group is known to be lost.
-- Replies: 1 if the group was lost and is created again, else 0; and up to where the group was delivered.
-- A lost group begins again at its checkpoint; at the beginning of a stream that is another one, or when there is no checkpoint.
local stream, delays = keys[1], keys[2]
local group, member, start = argv[1], argv[2], argv[3]
local refused = fenced(stream, member, argv[4], argv[5])
if refused then
  return refused
end
local lost = 0
local last, failed = delivered(stream, group)
if failed then
  return failed
end
if not last then
  local known_lost = argv[6] == '1'
  local checkpoint, _, generation = recall(stream, group, 'group:')
  if known_lost and not checkpoint then
    -- It was removed, under a member that goes on: so what was done once stays done.
    checkpoint, _, generation = recall(stream, group, 'removed:')
  end
  local stands = call('EXISTS', stream) == 1 and field(call('XINFO', 'STREAM', stream), 'last-generated-id')
  if checkpoint or known_lost then
    lost = 1
    start = checkpoint or '0-0'
    if not stands or is_before(stands, start) then
      start = '0-0'
    end
  elseif start == '$' then
    start = stands or '0-0'
  end
  call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
  -- What waited there for another try comes again as new.
  call('DEL', delays)
  last = start
  call('HDEL', stream .. ':topic', 'removed:' .. group)
  remember(stream, group, start, generation)
  missed_nothing(stream, group)
end
call('XGROUP', 'CREATECONSUMER', stream, group, member)
if argv[4] ~= '' then
  -- Held by someone of the same name who has lost the lease.
  give_back(stream, delays, group, member)
end
return { lost, last }

-- streamerson:claim:3
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
-- Takes over what others gave up, and does what must be done from time to time: moves messages that are due to the
-- stream, and writes the group's checkpoint.
-- KEYS: stream, delays. ARGV: group, member, lease in ms, most entries, cursor (- first), fence lease or empty, fence epoch,
--   suspect in hand (empty first).
-- Replies: next cursor (- when the search is through), {{entry, delivery count, {field, value, ...}}, ...},
--   how many entries were removed unprocessed, as far as Redis counts, ms until something is due or -1, suspect in hand or empty.
-- Entries that are taken over for the second time may be what their holders die of: of these suspects, a member is given
-- one at a time, so that not two of them end with one member.
-- With a fence the member is alone: what others hold is taken at once, oldest first, and when the search is through, new
-- entries too. Without a cursor it does not search, but only takes what is due again, and new entries.
local stream, delays, later = keys[1], keys[2], keys[1] .. ':later'
local group, member, lease_ms, most, cursor = argv[1], argv[2], tonumber(argv[3]), tonumber(argv[4]), argv[5]
local alone = argv[6] ~= ''
local suspect = argv[8]
local refused = fenced(stream, member, argv[6], argv[7])
if refused then
  return refused
end
local summary = redis.pcall('XPENDING', stream, group)
if summary.err then
  return summary
end
-- A sign of life: reading again what it holds of the end of all positions, which is nothing. Every Redis notes that; before 7.2 it
-- notes no claim that finds nothing, and no read that waits. Also the first write, after which maxmemory stops nothing.
call('XREADGROUP', 'GROUP', group, member, 'COUNT', 1, 'STREAMS', stream, '18446744073709551615-0')

local taken, lost = {}, 0
local delayed = call('EXISTS', delays) == 1

local checkpoint, written, generation, behind = recall(stream, group, 'group:')
written, behind = written or 0, behind or 0
local went_back = now() + 1000 < written
if went_back then
  behind = math.max(behind, written)
  -- All move by as much, so that their order stays.
  local moved = 0
  repeat
    local page = call('ZRANGE', delays, moved, moved + 999)
    for _, entry in ipairs(page) do
      call('ZINCRBY', delays, string.format('%.0f', now() - written), entry)
    end
    moved = moved + #page
  until #page == 0
end
if went_back or now() >= written + 1000 then
  local last, _, info = delivered(stream, group)
  lost = lost + missed(stream, group, last, info)
  remember(stream, group, settled(stream, group, last), generation, behind)
end

local function take(entry, idle, count)
  local claimed = call('XCLAIM', stream, group, member, idle, entry)
  -- Redis 7 leaves out what was trimmed away and forgets it; before, it answers nil and keeps it pending.
  if claimed[1] then
    taken[#taken + 1] = { entry, count + 1, claimed[1][2] }
  else
    call('XACK', stream, group, entry)
    lost = lost + 1
  end
end

if delayed and not (alone and cursor ~= '') then
  local due = call('ZRANGEBYSCORE', delays, '-inf', string.format('%.0f', now()), 'LIMIT', 0, most)
  for _, entry in ipairs(due) do
    call('ZREM', delays, entry)
    local held = call('XPENDING', stream, group, entry, entry, 1)[1]
    if held then
      take(entry, 0, held[4])
    end
  end
end

if suspect ~= '' then
  local held = call('XPENDING', stream, group, suspect, suspect, 1)[1]
  local works = held and held[2] == member and held[3] < lease_ms
  if not works or (delayed and call('ZSCORE', delays, suspect)) then
    suspect = ''
  end
end

-- Whether the entry is free, and for how long it must have been silent to be taken.
local function is_free(pending)
  local entry, holder, idle = pending[1], pending[2], pending[3]
  local due = delayed and call('ZSCORE', delays, entry)
  if due then
    return alone and tonumber(due) <= now(), 0
  end
  if alone and holder ~= member then
    return true, 0
  end
  if idle == 0 and now() < behind then
    -- Touched in a future that is over: its silence begins now.
    call('XCLAIM', stream, group, holder, 0, entry, 'IDLE', 0, 'JUSTID')
  end
  return idle >= lease_ms, lease_ms
end

-- A page of all that is pending: its length bounds this script, whatever is idle in it.
local page = math.min(math.max(4 * most, 128), 1000)
local next_cursor = '-'
if cursor ~= '' and #taken < most and summary[1] > 0 then
  local held = call('XPENDING', stream, group, cursor, '+', page)
  if #held == page then
    next_cursor = '(' .. held[page][1]
  end
  for _, pending in ipairs(held) do
    if #taken >= most then
      next_cursor = pending[1]
      break
    end
    local free, idle = is_free(pending)
    local is_suspect = not alone and pending[4] >= 2
    if free and not (is_suspect and suspect ~= '') then
      if is_suspect then
        suspect = pending[1]
      end
      if delayed then
        call('ZREM', delays, pending[1])
      end
      take(pending[1], idle, pending[4])
    end
  end
end

if alone and next_cursor == '-' and #taken < most then
  local new = call('XREADGROUP', 'GROUP', group, member, 'COUNT', most - #taken, 'STREAMS', stream, '>')
  for _, entry in ipairs(new and new[1][2] or {}) do
    taken[#taken + 1] = { entry[1], 1, entry[2] }
  end
end

if call('EXISTS', later) == 1 then
  local moved, bytes = 0, 0
  -- One by one, because they may be large.
  while moved < 128 and bytes < 1048576 do
    local packed = call('ZRANGEBYSCORE', later, '-inf', string.format('%.0f', now()), 'LIMIT', 0, 1)[1]
    if not packed then
      break
    end
    local message = cmsgpack.unpack(packed)
    call('XADD', stream, '*', 'id', message[2], 'type', message[3], 'corr', message[4],
      'reply', message[5], 'meta', message[6], 'data', message[7])
    call('ZREM', later, packed)
    moved, bytes = moved + 1, bytes + #packed
  end
end

local wait = -1
for _, index in ipairs({ delays, later }) do
  local first = call('ZRANGE', index, 0, 0, 'WITHSCORES')
  if first[2] then
    local due = math.max(0, first[2] - now())
    wait = wait < 0 and due or math.min(wait, due)
  end
end
return { next_cursor, taken, lost, wait, suspect }

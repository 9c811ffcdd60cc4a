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

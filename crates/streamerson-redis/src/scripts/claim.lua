-- streamerson:claim:1
-- Takes over what others gave up. KEYS: stream, delays. ARGV: group, member, lease in ms, most entries, cursor (- first).
-- Replies: next cursor (- when the search is through), {{entry, delivery count, {field, value, ...}}, ...},
--   how many entries were trimmed away unprocessed, ms until the next delay ends or -1.
local call = redis.call
local stream, delays = KEYS[1], KEYS[2]
local group, member, lease, most, cursor = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local taken, lost = {}, 0

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

local summary = redis.pcall('XPENDING', stream, group)
if summary.err then
  return summary
end

local delayed = call('EXISTS', delays) == 1
if delayed then
  local due = call('ZRANGEBYSCORE', delays, '-inf', string.format('%.0f', now), 'LIMIT', 0, most)
  for _, entry in ipairs(due) do
    call('ZREM', delays, entry)
    local held = call('XPENDING', stream, group, entry, entry, 1)[1]
    if held then
      take(entry, 0, held[4])
    end
  end
end

-- A page of all that is pending: its length bounds this script, whatever is idle in it.
local page = math.min(math.max(4 * most, 128), 1000)
local next_cursor = '-'
if #taken < most and summary[1] > 0 then
  local held = call('XPENDING', stream, group, cursor, '+', page)
  if #held == page then
    next_cursor = '(' .. held[page][1]
  end
  for _, pending in ipairs(held) do
    if #taken >= most then
      next_cursor = pending[1]
      break
    end
    if pending[3] >= lease and not (delayed and call('ZSCORE', delays, pending[1])) then
      take(pending[1], lease, pending[4])
    end
  end
end

local wait = -1
if delayed then
  local first = call('ZRANGE', delays, 0, 0, 'WITHSCORES')
  if first[2] then
    wait = math.max(0, first[2] - now)
  end
end
return { next_cursor, taken, lost, wait }

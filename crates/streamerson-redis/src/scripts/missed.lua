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

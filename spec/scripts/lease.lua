-- streamerson:lease:1
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
-- Leases of a topic. KEYS: stream. ARGV: one of
--   acquire, name, holder, ttl in ms: replies {name, holder, epoch, ms that remain}, whoever has it now
--   release, name, holder: replies 1, or 0 if the holder did not have it
--   list: replies {{name, holder, epoch, ms that remain}, ...}
local stream, action, name, holder = keys[1], argv[1], argv[2], argv[3]
local leases = stream .. ':leases'
-- Beside the leases, under what is no name: the newest epoch. One for all, so that leases can be forgotten.
local newest = '~epoch'

local function store(epoch, remaining, ttl, who)
  call('HSET', leases, name, string.format('%.0f %.0f %.0f %s', epoch, now() + remaining, ttl, who))
end

local function names()
  local found = {}
  for _, of in ipairs(call('HKEYS', leases)) do
    if of ~= newest then
      found[#found + 1] = of
    end
  end
  table.sort(found)
  return found
end

local function told(of, who, epoch, remaining)
  return { of, who, string.format('%.0f', epoch), remaining }
end

if action == 'list' then
  local held = {}
  for _, of in ipairs(names()) do
    local epoch, who, remaining = lease(stream, of)
    if remaining > 0 then
      held[#held + 1] = told(of, who, epoch, remaining)
    end
  end
  return held
end

local epoch, who, remaining, ends = lease(stream, name)
if action == 'release' then
  if remaining <= 0 or who ~= holder then
    return 0
  end
  return call('HDEL', leases, name)
end

local ttl = tonumber(argv[4])
if remaining > 0 and who ~= holder then
  if ends > now() + remaining then
    -- The clock went back: it ends when its time is over by the clock as it is.
    store(epoch, remaining, remaining, who)
  end
  return told(name, who, epoch, remaining)
end
if remaining <= 0 then
  -- What has run out is forgotten: it grows with what is held at one time, not with what was held before.
  for _, of in ipairs(names()) do
    local _, _, left = lease(stream, of)
    if left <= 0 then
      call('HDEL', leases, of)
    end
  end
  -- By the clock, so that it grows also when all was lost; and always.
  epoch = math.max((call('HGET', leases, newest) or 0) + 1, now())
  call('HSET', leases, newest, string.format('%.0f', epoch))
  -- What was left of a topic that was removed expires.
  call('PERSIST', leases)
end
store(epoch, ttl, ttl, holder)
return told(name, holder, epoch, ttl)

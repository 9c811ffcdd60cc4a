-- streamerson:extend:2
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
-- Signs of life. KEYS: stream. ARGV: group, member, fence lease or empty, fence epoch, entries. Replies how many of them the
-- member still holds. Asks first: a plain XCLAIM would take back what another member has taken over.
local stream, group, member = keys[1], argv[1], argv[2]
local refused = fenced(stream, member, argv[3], argv[4])
if refused then
  return refused
end
local extended = 0
for i = 5, #argv do
  local held = redis.pcall('XPENDING', stream, group, argv[i], argv[i], 1)
  if held.err then
    return held
  end
  if held[1] and held[1][2] == member then
    call('XCLAIM', stream, group, member, 0, argv[i], 'JUSTID')
    extended = extended + 1
  end
end
return extended

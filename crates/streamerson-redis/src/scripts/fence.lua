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

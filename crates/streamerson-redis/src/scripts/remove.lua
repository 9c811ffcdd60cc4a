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

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

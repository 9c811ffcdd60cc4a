-- Lets a group go on elsewhere; creates it, and its stream, if needed. KEYS: stream. ARGV: group, where (an entry, or $).
local stream, group, start = keys[1], argv[1], argv[2]
local last, failed = delivered(stream, group)
if failed then
  return failed
end
if last then
  call('XGROUP', 'SETID', stream, group, start)
else
  call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
end
local _, _, generation, behind = recall(stream, group, 'group:')
remember(stream, group, settled(stream, group, delivered(stream, group)), generation, behind)
return 1

-- Takes one entry out of a stream, and appends in the same step. KEYS: stream, then the streams of all outputs.
-- ARGV: entry, inbox bound, inbox ttl in ms, outputs. Replies 1, or 0: it was not there, and nothing happened.
local stream, entry = keys[1], argv[1]
local refused = refused_keys(1)
if refused then
  return refused
end
if call('XDEL', stream, entry) == 0 then
  return 0
end
-- A group that held it has nothing left to do.
for _, info in ipairs(call('XINFO', 'GROUPS', stream)) do
  local group = field(info, 'name')
  call('XACK', stream, group, entry)
  call('ZREM', stream .. ':delay:' .. group, entry)
end
local o = 4
while o <= #argv do
  append(o)
  o = after(o)
end
bound_inboxes(argv[2], argv[3])
return 1

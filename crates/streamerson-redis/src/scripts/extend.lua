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

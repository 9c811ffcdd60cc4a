-- Signs of life. KEYS: stream. ARGV: group, member, entries. Replies how many of them the member still holds.
-- Asks first: a plain XCLAIM would take back what another member has taken over.
local call = redis.call
local stream, group, member = KEYS[1], ARGV[1], ARGV[2]
local extended = 0
for i = 3, #ARGV do
  local held = redis.pcall('XPENDING', stream, group, ARGV[i], ARGV[i], 1)
  if held.err then
    return held
  end
  if held[1] and held[1][2] == member then
    call('XCLAIM', stream, group, member, 0, ARGV[i], 'JUSTID')
    extended = extended + 1
  end
end
return extended

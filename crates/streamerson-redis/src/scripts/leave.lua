-- Gives everything the member holds to whoever asks next, and removes it. KEYS: stream, delays. ARGV: group, member.
-- Replies how many entries it gave back.
-- Removing a consumer forgets what it holds, so it is emptied first, and kept if that did not work.
local stream, delays, group, member = keys[1], keys[2], argv[1], argv[2]
local summary = redis.pcall('XPENDING', stream, group)
if summary.err then
  return summary
end
local released = give_back(stream, delays, group, member)
if #call('XPENDING', stream, group, '-', '+', 1, member) == 0 then
  call('XGROUP', 'DELCONSUMER', stream, group, member)
end
return released

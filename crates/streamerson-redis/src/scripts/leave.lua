-- streamerson:leave:1
-- Gives everything the member holds to whoever asks next, and removes it. KEYS: stream, delays. ARGV: group, member.
-- Replies how many entries it gave back.
-- Removing a consumer forgets what it holds, so it is emptied first, and kept if that did not work.
local call = redis.call
local stream, delays, group, member = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local time = call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local released, start = 0, '-'
repeat
  local page = redis.pcall('XPENDING', stream, group, start, '+', 128, member)
  if page.err then
    return page
  end
  for _, pending in ipairs(page) do
    call('XCLAIM', stream, group, '~released', 0, pending[1], 'JUSTID')
    call('ZADD', delays, 'NX', now, pending[1])
    start = '(' .. pending[1]
  end
  released = released + #page
until #page == 0
if #call('XPENDING', stream, group, '-', '+', 1, member) == 0 then
  call('XGROUP', 'DELCONSUMER', stream, group, member)
end
return released

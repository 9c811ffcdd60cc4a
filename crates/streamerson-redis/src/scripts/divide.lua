-- Divides a topic, if it is not divided yet. KEYS: stream. ARGV: into how many partitions, or 0 to ask.
-- Replies into how many it is divided; 0: it is not.
local topic = keys[1] .. ':topic'
if argv[1] ~= '0' then
  call('HSETNX', topic, 'partitions', argv[1])
end
return tonumber(call('HGET', topic, 'partitions') or 0)

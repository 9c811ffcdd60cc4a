-- Divides a topic, if it is not divided yet. KEYS: stream. ARGV: into how many partitions, or 0 to ask.
-- Replies into how many it is divided; 0: it is not.
local topic = keys[1] .. ':topic'
if argv[1] ~= '0' then
  call('HSETNX', topic, 'partitions', argv[1])
  if call('EXISTS', keys[1]) == 0 then
    -- A topic that is divided is there, before there is anything in it.
    call('XGROUP', 'CREATE', keys[1], '~', '$', 'MKSTREAM')
    call('XGROUP', 'DESTROY', keys[1], '~')
  end
end
return tonumber(call('HGET', topic, 'partitions') or 0)

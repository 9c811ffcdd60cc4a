-- streamerson:divide:1
local call, argv, keys = redis.call, ARGV, KEYS
local clock

-- Milliseconds since 1970, the same throughout the script.
local function now()
  if not clock then
    local time = call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

-- A number that grows, to tell what was made under a name from what is made under it later.
local function stamp()
  local time = call('TIME')
  return string.format('%016.0f', time[1] * 1000000 + time[2])
end
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

-- An output is eight arguments: number of its key, terms, id, type, corr, reply, meta, data. Terms are 0: none; 1: the key
-- is an inbox; 2: three more follow, due time in ms or empty, key for once or empty, ms to remember that key.
local inboxes = {}

-- Redis does not undo what a script did before it failed, so what can be refused is refused before the first write.
local function refused_keys(first)
  for k = first, #keys do
    local kind = call('TYPE', keys[k]).ok
    if kind ~= 'stream' and kind ~= 'none' then
      return redis.error_reply('WRONGTYPE the key ' .. keys[k] .. ' of an output holds a ' .. kind)
    end
  end
end

local function after(o)
  return o + (argv[o + 1] == '2' and 11 or 8)
end

local function add(key, o)
  return call('XADD', key, '*', 'id', argv[o + 2], 'type', argv[o + 3], 'corr', argv[o + 4],
    'reply', argv[o + 5], 'meta', argv[o + 6], 'data', argv[o + 7])
end

-- The first key of a topic's memory: it changes with the topic, so that a new one does not remember what the old one did.
local function memory(key)
  local generation = call('HGET', key .. ':topic', 'generation')
  if not generation then
    generation = stamp()
    call('HSET', key .. ':topic', 'generation', generation)
  end
  return key .. ':sent:' .. generation .. ':'
end

-- Kept aside as a MessagePack array: first what makes it unique and keeps the order of equal times, then the six fields.
local function add_later(key, o, due)
  if call('EXISTS', key) == 0 then
    -- A topic begins with its first message, also with one that waits.
    call('XGROUP', 'CREATE', key, '~', '$', 'MKSTREAM')
    call('XGROUP', 'DESTROY', key, '~')
  end
  local order = stamp() .. string.format('%08d', o)
  call('ZADD', key .. ':later', due, cmsgpack.pack({ order, argv[o + 2], argv[o + 3], argv[o + 4], argv[o + 5],
    argv[o + 6], argv[o + 7] }))
  return '0-0'
end

local function add_on_terms(key, o)
  local due, once, keep = argv[o + 8], argv[o + 9], argv[o + 10]
  local sent = once ~= '' and memory(key) .. once
  local id = sent and call('GET', sent)
  if id then
    return id
  end
  if due ~= '' and tonumber(due) > now() then
    id = add_later(key, o, due)
  else
    id = add(key, o)
  end
  if sent then
    call('SET', sent, id, 'PX', keep)
  end
  return id
end

-- Appends the output that begins at argument o, and answers its position.
local function append(o)
  local key, terms = keys[tonumber(argv[o])], argv[o + 1]
  if terms == '2' then
    return add_on_terms(key, o)
  end
  if terms == '1' then
    inboxes[key] = true
  end
  return add(key, o)
end

-- Once per inbox and call: a bound with every XADD costs more than the acknowledgement.
local function bound_inboxes(bound, ttl)
  for inbox in pairs(inboxes) do
    call('XTRIM', inbox, 'MAXLEN', '~', bound)
    call('PEXPIRE', inbox, ttl)
  end
end

local effects

-- Of the completions with the same key, the first has its outputs; later ones only answer, with what the first answered.
local function effect(stream, group, o, count, key, keep)
  if not effects then
    local _, _, generation = recall(stream, group, 'group:')
    effects = stream .. ':done:' .. group .. ':' .. (generation or '') .. ':'
  end
  local first = call('GET', effects .. key)
  local answer = first or ''
  for _ = 1, count do
    local is_answer = argv[o + 1] == '1'
    if is_answer and answer == '' then
      answer = #argv[o + 6] .. ':' .. argv[o + 6] .. argv[o + 7]
    elseif is_answer and first then
      local length, rest = string.match(answer, '^(%d+):(.*)$')
      argv[o + 6], argv[o + 7] = string.sub(rest, 1, length), string.sub(rest, length + 1)
    end
    if is_answer or not first then
      append(o)
    end
    o = after(o)
  end
  if not first then
    call('SET', effects .. key, answer, 'PX', keep)
  elseif first ~= answer then
    call('SET', effects .. key, answer, 'KEEPTTL')
  end
end

-- Only the holder may ask for another try, and only of the attempt it was given.
local function retry(stream, delays, group, member, entry, delay, attempt)
  local held = call('XPENDING', stream, group, entry, entry, 1)[1]
  if not held or held[2] ~= member or held[4] ~= tonumber(attempt) then
    return 0
  end
  call('ZADD', delays, string.format('%.0f', now() + delay), entry)
  return 1
end

return { fenced = fenced, append = append, effect = effect, retry = retry, bound_inboxes = bound_inboxes }
end

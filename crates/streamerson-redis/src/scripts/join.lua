-- Makes a member known, and creates its group where there is none. KEYS: stream, delays.
-- ARGV: group, member, where a new group begins (an entry, or $), fence lease or empty, fence epoch, 1 if the group is known to be lost.
-- Replies: 1 if the group was lost and is created again, else 0; and up to where the group was delivered.
-- A lost group begins again at its checkpoint; at the beginning of a stream that is another one, or when there is no checkpoint.
local stream, delays = keys[1], keys[2]
local group, member, start = argv[1], argv[2], argv[3]
local refused = fenced(stream, member, argv[4], argv[5])
if refused then
  return refused
end
local lost = 0
local last, failed = delivered(stream, group)
if failed then
  return failed
end
if not last then
  local known_lost = argv[6] == '1'
  local checkpoint, _, generation = recall(stream, group, 'group:')
  if known_lost and not checkpoint then
    -- It was removed, under a member that goes on: so what was done once stays done.
    checkpoint, _, generation = recall(stream, group, 'removed:')
  end
  local stands = call('EXISTS', stream) == 1 and field(call('XINFO', 'STREAM', stream), 'last-generated-id')
  if checkpoint or known_lost then
    lost = 1
    start = checkpoint or '0-0'
    if not stands or is_before(stands, start) then
      start = '0-0'
    end
  elseif start == '$' then
    start = stands or '0-0'
  end
  call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
  -- What waited there for another try comes again as new.
  call('DEL', delays)
  last = start
  call('HDEL', stream .. ':topic', 'removed:' .. group)
  remember(stream, group, start, generation)
  missed_nothing(stream, group)
end
call('XGROUP', 'CREATECONSUMER', stream, group, member)
if argv[4] ~= '' then
  -- Held by someone of the same name who has lost the lease.
  give_back(stream, delays, group, member)
end
return { lost, last }

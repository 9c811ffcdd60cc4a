-- Appends messages on terms. KEYS: their streams. ARGV: outputs. Replies the position of each; 0-0 for one that is kept aside.
local refused = refused_keys(1)
if refused then
  return refused
end
local positions, o = {}, 1
while o <= #argv do
  positions[#positions + 1] = append(o)
  o = after(o)
end
return positions

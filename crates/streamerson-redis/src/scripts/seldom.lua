-- What few calls need is made only when one does: making functions takes longer than settling.
local function seldom()

#!lua flags=no-writes
-- runs: describe runs.
-- Keys    1 sessions (zset)
-- Args    1 now  then the runs
-- Gives   for each: what it keeps of itself, the root's row without its message, the root's state and
--         cell, 1 if it is paused, its number of changes, what park() was asked for; seven times "" where it is not known
-- Cost    O(runs)
-- Repeat  reads only
-- @include _base
-- @include _queue
-- @include _rows
-- @include _runs
local out = {}
for k = 2, #ARGV do
  local run = ARGV[k]
  local got = call('HMGET', P .. 'n:' .. run, 'r', '\0\0\0\0', 'u', 'P', 'V', 'R', 'E')
  local state = call('GETRANGE', P .. 'c:' .. run, 0, 0)
  if got[1] and got[2] and not got[3] and state ~= '' and not is_past(run, byte(state)) then
    out[#out + 1] = got[1]
    out[#out + 1] = sub(got[2], 1, offset_of(got[2]))
    out[#out + 1] = state
    local cell = call('HGET', P .. 'v:' .. run, '\0\0\0\0') or ''
    if got[7] and #cell >= 26 then cell = sub(cell, 1, 18) .. got[7] .. sub(cell, 27) end -- nobody saw that end
    out[#out + 1] = cell
    out[#out + 1] = got[4] and 1 or 0
    out[#out + 1] = got[5] or '0'
    out[#out + 1] = got[6] or ''
  else
    for _ = 1, 7 do out[#out + 1] = '' end
  end
end
return out

#!lua flags=no-writes
-- places: describe the limits of a node.
-- Keys    1 sessions (zset)
-- Args    1 now  2 id of the node  3 how many of those that have a place are named
-- Gives   for each limit: key, how many places, how many are taken, how many wait, who has one
-- Cost    O(limits)
-- Repeat  reads only
-- @include _base
-- @include _queue
-- @include _rows
-- @include _runs
-- @include _ended
-- @include _finish
-- @include _phases
-- @include _extras
-- @include _along
-- @include _limits
-- @include _parks
-- @include _back
local r = run_of(sub(ARGV[2], 1, 16))
local x = phases().node_seen(r, (unpack_('>I4', ARGV[2], 17)))
local out = {}
if not x or has(x.flags, 2) then return out end
for k, one in ipairs(limits().of(r, x)) do
  local holders = call('ZRANGE', P .. 'taken:' .. one[1], 0, ARGV[3] - 1)
  out[k] = {one[3], one[2], limits().taken_at(one[1]), call('ZCARD', P .. 'wanted:' .. one[1]), holders}
end
return out

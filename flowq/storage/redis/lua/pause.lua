#!lua
-- pause: let nothing more of a run be handed out, or let it go on.
-- Keys    1 sessions (zset)
-- Args    1 now  2 run  3 1 to pause, 0 to go on
-- Gives   the state of the run, -1 if it is not known; how many cursors are left
-- Cost    one page of nodes that are held
-- Repeat  safe
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
local r = run_of(ARGV[2])
local root = phases().node_seen(r, 0)
if not root then return {-1, 0} end
if ARGV[3] == '0' then
  extras().go_on(r)
  walk()
  return {root.state, leave(true)}
end
if root.state < SUCCESS then
  call('HSET', r.n, 'P', '')
  call('SADD', P .. 'paused', r.id)
end
return {root.state, 0}

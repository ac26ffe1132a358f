#!lua flags=no-writes
-- started: list what bodies of a run, or of a task alone, have started.
-- Keys    1 sessions (zset)
-- Args    1 now  2 id  3 the last one of the page before, or ""  4 limit
-- Gives   for each its id, and the index (4 bytes) of what started it or ""
-- Cost    O(what was started)
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
-- @include _started
local id = ARGV[2]
if not is_known(id) then return {} end
local key, at = P .. 'started:' .. id, 0
if ARGV[3] ~= '' then
  at = call('LPOS', key, ARGV[3])
  if not at then return {} end
  at = at + 2
end
return call('LRANGE', key, at, at + 2 * tonumber(ARGV[4]) - 1)

#!lua
-- page: move on one page of work that earlier steps left.
-- Keys    1 sessions (zset)
-- Args    1 now
-- Gives   how many cursors are left
-- Cost    one page of edges
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
resume()
walk()
return leave(true)

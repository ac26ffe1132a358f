#!lua
-- rewind: let nodes of a run run again; or go on with that, a page a call.
-- Keys    1 sessions (zset)
-- Args    1 now  2 run  3 generation, or -1 to go on  then ranges (8 bytes each): 4 chosen
--         5 reopened, the root among them  6 dropped  7 the first two together  8 number of changes that
--         was seen, of a run that goes on
-- Gives   "missing", "no", "same", "busy" (pages of the run, or of the
--         generation before, are left), "more", or "done"
-- Cost    one page; to begin, O(chosen + sessions) of a run that goes on
-- Repeat  safe: a generation is made once
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
-- @include _rewind
local r, generation = run_of(ARGV[2]), tonumber(ARGV[3])
local root = phases().node_seen(r, 0)
if not root then return 'missing' end
if generation >= 0 then
  if call('HEXISTS', r.n, 'w') == 1 then -- it may even have ended before its last pages are done
    return root.gen == generation % 256 and 'more' or 'busy'
  end
  if root.gen == generation % 256 then return 'same' end
  if (root.gen + 1) % 256 ~= generation % 256 then return 'no' end
  for _, cursor in ipairs(call('LRANGE', P .. 'todo', 0, -1)) do
    if sub(cursor, 1, 16) == r.id then return 'busy' end
  end
  if root.state < SUCCESS and (call('HGET', r.n, 'V') ~= ARGV[8] or not may_begin(r, ARGV[4], ARGV[5])) then
    return 'no'
  end
  open_generation(r, root, generation, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
end
local more = rewind_page(r)
walk()
leave()
return more and 'more' or 'done'

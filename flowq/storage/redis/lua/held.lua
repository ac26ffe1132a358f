#!lua flags=no-writes
-- held: read back what a session holds.
-- Keys    1 sessions (zset)
-- Args    1 now  2 session  3 bytes of values
-- Gives   ids, rows, more (as step)
-- Cost    O(what it holds)
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
-- @include _hand
local flat = call('HGETALL', P .. 'w:' .. ARGV[2])
local leases, ids, rows, more = {}, {}, {}, {}
for k = 1, #flat, 2 do
  if #flat[k] > 1 then
    ids[#ids + 1] = flat[k]
    leases[flat[k]] = flat[k + 1]
  end
end
table.sort(ids)
local budget = {tonumber(ARGV[3]), false}
for k, id in ipairs(ids) do
  local row = body_row(id)
  rows[k] = row or '\0\0\0\4'
  local _, attempt, losses = record_of(id)
  local values, complete = {}, true
  if row and #id == 20 then values, complete = values_of(id, row, budget) end
  more[k] = {k, (unpack_('>I4', leases[id])), attempt, losses, complete and 1 or 0, values}
end
return {ids, rows, more}

#!lua flags=no-writes
-- left: say whether anything of some queues is still to run.
-- Keys    1 sessions (zset)
-- Args    1 now  2 due, ms, from which on to look at what is scheduled  3 how many of that moment
--         to leave out  4.. queues
-- Gives   1 or 0; behind a 0, unless all of what is scheduled was seen, where to go on (as 2 and 3)
-- Cost    O(queues + what runs), and 1,000 of what is scheduled
-- Repeat  reads only
-- @include _base
-- @include _queue
-- @include _rows
local mine = {}
if call('EXISTS', P .. 'todo', P .. 'again') > 0 then return {1} end
for k = 4, #ARGV do
  mine[ARGV[k]] = true
  if ready_in(ARGV[k]) > 0 then return {1} end
end

local function is_mine(id)
  if #id > 20 then return false end -- a deadline
  local row
  if #id == 16 then
    row = call('HGET', P .. 'm', id)
  else
    row = call('HGET', P .. 'n:' .. sub(id, 1, 16), sub(id, 17))
    if row and byte(row, 6) == 2 then return true end -- it sleeps, in no queue
  end
  return row and mine[(queue_of(id, row))]
end

for _, session in ipairs(call('ZRANGE', P .. 'L', 0, -1)) do
  for _, id in ipairs(call('HKEYS', P .. 'w:' .. session)) do
    if #id > 1 and is_mine(id) then return {1} end
  end
end
local from, skip = ARGV[2], tonumber(ARGV[3])
local page = call('ZRANGE', P .. 's', from, '+inf', 'BYSCORE', 'LIMIT', skip, 1000, 'WITHSCORES')
for k = 1, #page, 2 do
  if is_mine(page[k]) then return {1} end
  skip = page[k + 1] == from and skip + 1 or 1
  from = page[k + 1]
end
if #page < 2000 then return {0} end
return {0, from, skip}

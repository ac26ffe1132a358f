#!lua flags=allow-oom
-- release: end a session; what it held goes back at once.
-- Keys    1 sessions (zset)
-- Args    1 now  2 session  3 reason  then the ids that it was running
-- Gives   how many went back or ended, or a run of theirs that is made to run again, how many cursors are left
-- Cost    O(what it held); one page of edges
-- Repeat  safe: a session that is gone changes nothing
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
local session = ARGV[2]
if not call('ZSCORE', P .. 'L', session) then return {0, 0} end
local who = who_of(session)
local running = {}
for k = 4, #ARGV do running[ARGV[k]] = true end
local flat = call('HGETALL', P .. 'w:' .. session)
local leases, ids = {}, {}
for k = 1, #flat, 2 do
  if #flat[k] > 1 then
    ids[#ids + 1] = flat[k]
    leases[flat[k]] = flat[k + 1]
  end
end
table.sort(ids)
if call('EXISTS', P .. 'again') == 1 then
  for _, id in ipairs(ids) do
    if #id == 20 and call('SISMEMBER', P .. 'again', sub(id, 1, 16)) == 1 then return {sub(id, 1, 16), 0} end
  end
end
for _, id in ipairs(ids) do
  try(id, lose, id, leases[id], session, who, running[id], ARGV[3])
end
drop_session(session)
walk()
return {#ids, leave(true)}

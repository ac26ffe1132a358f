#!lua
-- cancel: stop tasks, nodes or runs.
-- Keys    1 sessions (zset)
-- Args    1 now  2 1 by force  then the ids
-- Gives   for each 1 if it is known, 0 if not, 2 if its run is made to run again; then how many cursors are left
-- Cost    O(ids * sessions); one page of edges
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
local force = ARGV[2] == '1'
local ids = {}
for k = 3, #ARGV do ids[#ids + 1] = ARGV[k] end
local held = phases().holders(ids)
local out = {}

-- A node, a run by its root, or a task that has become one.
local function cancel_node(id)
  local r = run_of(sub(id, 1, 16))
  local i = #id == 16 and 0 or unpack_('>I4', id, 17)
  local x = phases().node_seen(r, i)
  if not x then return 0 end
  if call('HEXISTS', r.n, 'w') == 1 then return 2 end
  if i == 0 and x.state < SUCCESS then
    extras().go_on(r) -- else what is to clean up after it would wait
    parks().take_all_back(r)
  elseif parks().is(r, i) then
    parks().unpark(r, x)
  end
  if x.state == EXPANDED then
    phases().cancel_inwards(r, x, force)
  elseif x.state < EXPANDED then
    local settled = settled_by(id)
    if x.state == QUEUED and not call('ZSCORE', P .. 's', id) then leave_list(id, lane_of(r, x)) end
    if x.state == WAITING then x.ready = 0 end
    finish(r, x, CANCELLED, cell_of(CANCELLED, 'cancelled'), settled, NONE)
    forget(id)
  end
  return 1
end

for k, id in ipairs(ids) do
  out[k] = 1
  if held[id] then
    if #id == 20 then parks().end_parking(id) end
    phases().mark(id, held[id])
  elseif #id == 16 and not forgotten[id] and not kept(id) then
    local row = body_row(id)
    if row then
      if not call('ZSCORE', P .. 's', id) then leave_list(id, queue_of(id, row)) end
      end_task(id, row, CANCELLED, cell_of(CANCELLED, 'cancelled'), settled_by(id))
    else
      out[k] = cancel_node(id)
    end
  elseif #id == 20 then
    out[k] = cancel_node(id)
  end
end
walk()
out[#out + 1] = leave(true)
return out

#!lua
-- park: let nobody see how nodes end that are to run anew, and stop some of them.
-- Keys    1 sessions (zset)
-- Args    1 now  2 run  3 what is asked for  4 number of changes that was seen
--         then ranges (8 bytes each): 5 nodes  6 those to stop
-- Gives   "missing", "no", "same", "busy" (pages of the run are left), or "done"
-- Cost    O(nodes + sessions); one page of edges
-- Repeat  safe: the same request again changes nothing
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
if not root then return 'missing' end
local got = call('HMGET', r.n, 'w', 'R', 'V')
if got[1] then return 'busy' end
local nodes, parked = {}, true
for at = 1, #ARGV[5], 8 do
  local first, count = unpack_('>I4I4', ARGV[5], at)
  for from = first, first + count - 1, MANY do read_nodes(r, from, math.min(MANY, first + count - from)) end
  for i = first, first + count - 1 do
    nodes[#nodes + 1] = i
    parked = parked and parks().is(r, i)
  end
end
if got[2] == ARGV[3] and parked then return 'same' end
for _, cursor in ipairs(call('LRANGE', P .. 'todo', 0, -1)) do
  if sub(cursor, 1, 16) == r.id then return 'busy' end
end
if root.state >= SUCCESS or got[3] ~= ARGV[4] then return 'no' end
local ids = {}
for _, i in ipairs(nodes) do
  local x = node(r, i)
  if x and x.state == QUEUED then ids[#ids + 1] = r.id .. pack('>I4', i) end
end
local held = phases().holders(ids)
for _, i in ipairs(nodes) do
  local x, id = node(r, i), r.id .. pack('>I4', i)
  if not x or not parks().is(r, i) and x.state ~= EXPANDED and not held[id] then return 'no' end
end
local stops = {}
for at = 1, #ARGV[6], 8 do
  local first, count = unpack_('>I4I4', ARGV[6], at)
  for i = first, first + count - 1 do stops[i] = true end
end
call('HSET', r.n, 'R', ARGV[3])
for _, i in ipairs(nodes) do
  local i4 = pack('>I4', i)
  local x, lease = node(r, i), held[r.id .. i4]
  parks().park(r, i)
  if lease then -- its end is no plain one
    local flags = byte(lease[2], 5)
    if flags < 128 then flags = flags + 128 end
    lease[2] = sub(lease[2], 1, 4) .. string.char(flags) .. sub(lease[2], 6)
    call('HSET', P .. 'w:' .. lease[1], r.id .. i4, lease[2])
    if stops[i] then phases().mark(r.id .. i4, lease) end
  elseif stops[i] and x.state == EXPANDED and call('HEXISTS', r.n, 'p' .. i4) == 0 then
    phases().cancel_inwards(r, x)
  end
end
parks().write(r)
walk()
leave()
return 'done'

#!lua
-- enqueue: take tasks called alone, those whose ids are not known.
-- Keys    1 sessions (zset)
-- Args    1 now  2 how many  then for each: id, row, delay/due/expires in/expires (24 bytes) or "",
--         and behind that the parent, if it has one
-- Gives   one letter each: "1" taken, "0" known, "2" refused
-- Cost    O(messages)
-- Repeat  safe: what is known is left as it is
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
front = false
local n = tonumber(ARGV[2])
local m = P .. 'm'
local ids = {}
for k = 1, n do ids[k] = ARGV[3 * k] end
local known = {}
for first = 1, n, MANY do
  local got = call('HMGET', m, unpack(ids, first, math.min(first + MANY - 1, n)))
  for k = 1, #got do known[first + k - 1] = got[k] end
end
local out, args, seen, queues = {}, {}, {}, {}
for k = 1, n do
  local id = ids[k]
  if known[k] or seen[id] or kept(id) or call('EXISTS', P .. 'n:' .. id) == 1 then
    out[k] = '0'
  else
    local row, timed = ARGV[3 * k + 1], ARGV[3 * k + 2]
    local size, refused = #timed % 24, false
    if size > 0 then
      local parent = sub(timed, -size)
      timed, refused = sub(timed, 1, -size - 1), may_not_start(parent)
      if not refused then note_start(parent, id) end
    end
    if refused then
      out[k] = '2'
    else
      seen[id] = true
      out[k] = '1'
      args[#args + 1] = id
      args[#args + 1] = row
      local queue, priority = queue_of(id, row)
      queues[queue] = true
      if timed == '' then push(id, queue, priority, false) else let_run(id, queue, priority, timed) end
    end
  end
end
for queue in pairs(queues) do call('SADD', P .. 'q', queue) end
if #args > 0 then many('HSET', m, args) end
flush()
return table.concat(out)

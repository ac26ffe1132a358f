#!lua
-- fork: copy a page of a run that has ended under another id; with the last page nodes of it run again.
-- Keys    1 sessions (zset)
-- Args    1 now  2 run  3 new run  4 number of changes that was seen  5 first node  6-9 ranges, as for
--         rewind  10 names of queues, "\0" behind each  then for each task that has another message:
--         index, flags of its record, row
-- Gives   "known", "missing", "no", "busy" (pages of the run are left), "lost" (another copy is under
--         way), the next node, or "done"
-- Cost    a page of nodes, 4 MB or one of them
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
-- @include _rewind
local BYTES = 4194304
-- What is kept of a node in n:<run> beside its row.
local KINDS = {'', 'e', 'f', 'l', 'm', 'o', 't'}
local source, r, first = run_of(ARGV[2]), run_of(ARGV[3]), tonumber(ARGV[5])
local stored = call('HGET', r.n, 'u')
if not stored and call('EXISTS', r.n) == 1 then
  local there = node(r, 0)
  if not there or not is_past(r.id, there.state) then return 'known' end
end
local root = phases().node_seen(source, 0)
if not root then return 'missing' end
if first == 0 then
  for _, cursor in ipairs(call('LRANGE', P .. 'todo', 0, -1)) do
    if sub(cursor, 1, 16) == source.id then return 'busy' end
  end
end
if root.state < SUCCESS or call('HGET', source.n, 'V') ~= ARGV[4] then
  if stored then call('UNLINK', r.n, r.c, r.v) end
  return 'no'
end
if first == 0 then
  r.nodes = {}
  call('UNLINK', r.n, r.c, r.v)
  call('ZREM', P .. 'x', 'r' .. r.id)
  local got = call('HMGET', source.n, 'r', 'q', 'X')
  call('HSET', r.n, 'r', pack('>I6', now) .. sub(got[1], 7), 'q', got[2])
  if got[3] then call('HSET', r.n, 'X', got[3]) end -- rows that never came are hidden here too
elseif tonumber(stored or -1) ~= first then
  return 'lost'
end

-- A row with another id in its message.
local function with_id(row, id)
  local at = offset_of(row) + 2
  local b = byte(row, at)
  if not b then return row end
  at = at + (b == 220 and 3 or 1)
  if byte(row, at) ~= 196 then return row end
  return sub(row, 1, at) .. string.char(#id) .. id .. sub(row, at + 2 + byte(row, at + 1))
end

local others = {}
for k = 11, #ARGV, 3 do others[unpack_('>I4', ARGV[k])] = {byte(ARGV[k + 1]), ARGV[k + 2]} end
local total = math.floor(call('STRLEN', source.c) / 32)
local last, bytes = first, 0
while last < total and last - first < 2 * PAGE and bytes < BYTES do
  local count = math.min(50, total - last)
  local raw, fields, records = call('GETRANGE', source.c, last * 32, (last + count) * 32 - 1), {}, {}
  for _, kind in ipairs(KINDS) do
    for i = last, last + count - 1 do fields[#fields + 1] = kind .. pack('>I4', i) end
  end
  local got, own = call('HMGET', source.n, unpack(fields)), {}
  for k = 1, count do records[k] = sub(raw, 32 * k - 31, 32 * k) end
  for k, field in ipairs(fields) do
    local value, i = got[k], unpack_('>I4', field, #field - 3)
    if value then
      local new, other = r.id .. pack('>I4', i), others[i]
      local grown = got[5 * count + i - last + 1]
      if #field == 4 then
        value = with_id(value, new)
        if other and not grown then -- what followed its failure may have made it an expansion
          local record = records[i - last + 1]
          local was = byte(record, 3)
          local flags = other[1] + (has(was, 2) and 2 or 0) + (was >= 128 and other[1] < 128 and 128 or 0)
          records[i - last + 1] = sub(record, 1, 2) .. string.char(flags, 255) .. sub(record, 5)
          value = other[2]
        end
      elseif byte(field) == 111 then
        value = sub(value, 1, 2) .. with_id(sub(value, 3), new)
        if other then value = string.char(other[1], 255) .. other[2] end
      end
      own[#own + 1] = field
      own[#own + 1] = value
      bytes = bytes + #value
    end
  end
  if #own > 0 then many('HSET', r.n, own) end
  call('SETRANGE', r.c, last * 32, table.concat(records))
  local cells, kept_cells = call('HMGET', source.v, unpack(fields, 1, count)), {}
  for k = 1, count do
    if cells[k] then
      kept_cells[#kept_cells + 1] = fields[k]
      kept_cells[#kept_cells + 1] = cells[k]
      bytes = bytes + #cells[k]
    end
  end
  if #kept_cells > 0 then call('HSET', r.v, unpack(kept_cells)) end
  last = last + count
end
if last < total then
  call('HSET', r.n, 'u', last)
  for _, key in ipairs({r.c, r.n, r.v}) do call('PEXPIRE', key, 3600000) end
  return last
end
call('HDEL', r.n, 'u')
for queue in string.gmatch(ARGV[10], '(.-)%z') do call('SADD', P .. 'q', queue) end
call('ZADD', P .. 'runs', call('INCR', P .. 'runs:n'), r.id)
r.nodes = {}
local copy = node(r, 0)
open_generation(r, copy, copy.gen + 1, ARGV[6], ARGV[7], ARGV[8], ARGV[9])
flush()
return 'done'

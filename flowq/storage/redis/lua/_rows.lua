-- Rows begin with a head of fixed width (rows.py writes them); positions count from 1.
--   a task alone   1 body offset  5 special  6 max_losses  7 priority  9 queue length  10 queue
--                  [result_ttl, failed_ttl]
--   a node         1 body offset  5 special  6 kind  7 bits  8 phase  9 max_losses  10 priority
--                  12 owner  16 inner  20 children  24 reads  28 entries  32 parents (ranges each)
--                  36 value length  40 name length  41 queue length  42 those, in this order
--                  [all in its body (ranges)]  [more]  [rule]  [delay, due, expires in, expires]
--   more           1 lenient edges (ranges)  5 tolerate  9 groups  11 need  15 most  19 time, ms: of an
--                  expansion its deadline, of a join how long it sleeps or waits  25 owned nodes
--                  (ranges)  29 signal length  31 length of the failure that blocks it
--                  35 followers  39 those it follows (ranges)  43 what goes along (of, first, own,
--                  count: 16 bytes each)  45 length of its limits  49 lenient edges, owned nodes, followers, those it
--                  follows, along, limits (places 4, length 2, key), signal, failure, groups, length of all that (4). A group:
--                  1 phase  2 when  3 inner  7 entries (ranges)  11 nodes (ranges)  15 value length
--                  19 those, in this order
-- special: 1 expires  2 alone in its step  4 delayed  8 times to live of its own  16 rule of its own
-- 32 more  64 a deadline  128 blocked from the start
local function offset_of(row) return (unpack_('>I4', row)) end

local function queue_of(id, row)
  if #id == 16 then
    local priority, n = unpack_('>hB', row, 7)
    return sub(row, 10, 9 + n), priority
  end
  local priority = unpack_('>h', row, 10)
  local off, n = offset_of(row), byte(row, 41)
  local special = byte(row, 5)
  if has(special, 32) then
    local c, r, e, p, v, name = unpack_('>I4I4I4I4I4B', row, 20)
    local at = 42 + 8 * (c + r + e + p) + v + name
    return sub(row, at, at + n - 1), priority
  end
  local last = off - (has(special, 16) and 20 or 0)
  if has(special, 1) or has(special, 4) then last = last - 24 end
  return sub(row, last - n + 1, last), priority
end

-- Whether a row has all that its head says; `size` is that of the id.
local function is_whole(size, row)
  if #row < (size == 16 and 9 or 41) then return false end
  local off = offset_of(row)
  if off > #row then return false end
  local tail = has(byte(row, 5), 8) and 12 or 0
  if size == 16 then return off >= 9 + byte(row, 9) + tail end
  local c, r, e, p, v, n, q = unpack_('>I4I4I4I4I4BB', row, 20)
  return off >= 41 + 8 * (c + r + e + p) + v + n + q
end

local function max_losses_of(id, row) return byte(row, #id == 16 and 6 or 9) end

local function name_of(row)
  local c, r, e, p, v, n = unpack_('>I4I4I4I4I4B', row, 20)
  local at = 42 + 8 * (c + r + e + p) + v
  return sub(row, at, at + n - 1)
end

-- The registered name in an envelope: version, array, id (bin), task (str). Text is all that is
-- taken from it, so bytes that are no message give an empty name.
local function task_of(row)
  local at = offset_of(row) + 2
  local b = byte(row, at)
  if not b then return '' end
  if b == 220 then at = at + 3 elseif b >= 144 and b <= 159 then at = at + 1 else return '' end
  if byte(row, at) ~= 196 then return '' end
  at = at + 2 + (byte(row, at + 1) or 0)
  b = byte(row, at) or 0
  if b >= 160 and b <= 191 then return sub(row, at + 1, at + b - 160) end
  if b == 217 then return sub(row, at + 2, at + 1 + (byte(row, at + 1) or 0)) end
  return ''
end

local function id_text(id)
  local hex = {}
  for i = 1, 16 do hex[i] = string.format('%02x', byte(id, i)) end
  local h = table.concat(hex)
  local text = table.concat({sub(h, 1, 8), sub(h, 9, 12), sub(h, 13, 16), sub(h, 17, 20), sub(h, 21)}, '-')
  if #id == 20 then text = text .. ':' .. string.format('%d', (unpack_('>I4', id, 17))) end
  return text
end

-- Numbers above 2^32 cannot go through %d, so times are packed by struct alone.
local function cell_of(kind, body, delivery, started)
  return pack('>BI4I8I8', kind, delivery or 0, started or 0, now) .. body
end

-- The body of a failed cell, for what the store itself lets fail (errors.Failure, array-like).
local function failure(id, row, reason, kind, message)
  local m = cmsgpack.pack
  local node = #id == 20 and m(name_of(row)) or '\192'
  return '\154' .. m(task_of(row)) .. m(id_text(id)) .. node .. m(reason) .. m(kind) .. m(message)
    .. m('') .. '\0' .. '\144' .. '\192'
end

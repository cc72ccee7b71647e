"""Sums of arrays that have arrived in rings, in LLVM: `comm.ring_calls` writes their tables.

What is read and written around the end of a ring is done in chunks that end there.
"""

from __future__ import annotations

from distgrad.comm.ring_calls import ADDITION, CHUNK, OPERAND, SUM


def _add(name: str, lanes: int, size: int) -> str:
    """A function that adds arrays of so many bytes, whole vectors first."""
    return f"""
define internal void @add_{name}(ptr %a, ptr %b, ptr %out, i64 %bytes) {{
entry:
  %whole = and i64 %bytes, {-lanes * size}
  br label %vectors
{_loop("vectors", "singles", ("0", "entry"), "%whole", f"<{lanes} x {name}>", lanes * size, size)}
{_loop("singles", "done", ("%whole", "vectors"), "%bytes", name, size, size)}
done:
  ret void
}}
"""


def _loop(
    here: str, after: str, start: tuple[str, str], stop: str, kind: str, step: int, align: int
) -> str:
    """The loop of label ``here``, from a value that comes from a label, in steps of some bytes."""
    x = f"%{here}"  # in front of its values
    return f"""{here}:
  {x}.i = phi i64 [ {start[0]}, %{start[1]} ], [ {x}.next, {x}.body ]
  {x}.more = icmp ult i64 {x}.i, {stop}
  br i1 {x}.more, label {x}.body, label %{after}
{here}.body:
  {x}.at.a = getelementptr i8, ptr %a, i64 {x}.i
  {x}.at.b = getelementptr i8, ptr %b, i64 {x}.i
  {x}.at.out = getelementptr i8, ptr %out, i64 {x}.i
  {x}.a = load {kind}, ptr {x}.at.a, align {align}
  {x}.b = load {kind}, ptr {x}.at.b, align {align}
  {x}.sum = fadd {kind} {x}.a, {x}.b
  store {kind} {x}.sum, ptr {x}.at.out, align {align}
  {x}.next = add i64 {x}.i, {step}
  br label %{here}"""


# ``@sums`` is what `exchange` calls, whose ``@field`` and ``@count`` these use.
TEXT = f"""{_add("float", 16, 4)}{_add("double", 8, 8)}
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)

; Finds where the arrays of a sum lie in the rings: as their elements must, from multiples of 8 on.
define internal void @find(ptr %sum) {{
entry:
  %number = call i64 @field(ptr %sum, i64 2)
  %arrays.at = call i64 @field(ptr %sum, i64 3)
  %arrays = inttoptr i64 %arrays.at to ptr
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %behind ]
  %more = icmp ult i64 %i, %number
  br i1 %more, label %body, label %done
body:
  %words = mul i64 %i, {OPERAND}
  %array = getelementptr i64, ptr %arrays, i64 %words
  %row.at = call i64 @field(ptr %array, i64 0)
  %arrives = icmp ne i64 %row.at, 0
  br i1 %arrives, label %ring, label %behind
ring:
  %row = inttoptr i64 %row.at to ptr
  %offset = call i64 @field(ptr %array, i64 1)
  %base = call i64 @field(ptr %row, i64 4)
  %size = call i64 @field(ptr %row, i64 5)
  %read = call i64 @count(ptr %row, i64 7)
  %position = add i64 %read, %offset
  %base.place = getelementptr i64, ptr %array, i64 2
  store i64 %base, ptr %base.place
  %position.place = getelementptr i64, ptr %array, i64 3
  store i64 %position, ptr %position.place
  %size.place = getelementptr i64, ptr %array, i64 4
  store i64 %size, ptr %size.place
  br label %behind
behind:
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}

; Does one sum, in chunks that lie in one piece in all of its arrays.
define internal void @sum(ptr %sum) {{
entry:
  %elements = call i64 @field(ptr %sum, i64 0)
  %code = call i64 @field(ptr %sum, i64 1)
  %shift = add i64 %code, 2
  %number = call i64 @field(ptr %sum, i64 2)
  %arrays.at = call i64 @field(ptr %sum, i64 3)
  %arrays = inttoptr i64 %arrays.at to ptr
  %count = call i64 @field(ptr %sum, i64 4)
  %additions.at = call i64 @field(ptr %sum, i64 5)
  %additions = inttoptr i64 %additions.at to ptr
  %bytes = shl i64 %elements, %shift
  br label %chunk
chunk:
  %done = phi i64 [ 0, %entry ], [ %done.next, %added ]
  %left = sub i64 %bytes, %done
  %short = icmp ult i64 %left, {CHUNK}
  %most = select i1 %short, i64 %left, i64 {CHUNK}
  %empty = icmp eq i64 %left, 0
  br i1 %empty, label %end, label %find
find:
  %i = phi i64 [ 0, %chunk ], [ %i.next, %found ]
  %length = phi i64 [ %most, %chunk ], [ %length.next, %found ]
  %i.more = icmp ult i64 %i, %number
  br i1 %i.more, label %found, label %add
found:
  %words = mul i64 %i, {OPERAND}
  %array = getelementptr i64, ptr %arrays, i64 %words
  %base = call i64 @field(ptr %array, i64 2)
  %start = call i64 @field(ptr %array, i64 3)
  %size = call i64 @field(ptr %array, i64 4)
  %position = add i64 %start, %done
  %offset = urem i64 %position, %size
  %to.end = sub i64 %size, %offset
  %cut = icmp ult i64 %to.end, %length
  %length.next = select i1 %cut, i64 %to.end, i64 %length
  %now = add i64 %base, %offset
  %now.place = getelementptr i64, ptr %array, i64 5
  store i64 %now, ptr %now.place
  %i.next = add i64 %i, 1
  br label %find
add:
  %j = phi i64 [ 0, %find ], [ %j.next, %one.done ]
  %j.more = icmp ult i64 %j, %count
  br i1 %j.more, label %one, label %added
one:
  %j.words = mul i64 %j, {ADDITION}
  %addition = getelementptr i64, ptr %additions, i64 %j.words
  %a = call ptr @now(ptr %arrays, ptr %addition, i64 0)
  %out = call ptr @now(ptr %arrays, ptr %addition, i64 2)
  %second = call i64 @field(ptr %addition, i64 1)
  %alone = icmp slt i64 %second, 0
  br i1 %alone, label %copy, label %both
copy:
  call void @llvm.memmove.p0.p0.i64(ptr %out, ptr %a, i64 %length, i1 false)
  br label %one.done
both:
  %b = call ptr @now(ptr %arrays, ptr %addition, i64 1)
  %double = icmp ne i64 %code, 0
  br i1 %double, label %doubles, label %floats
floats:
  call void @add_float(ptr %a, ptr %b, ptr %out, i64 %length)
  br label %one.done
doubles:
  call void @add_double(ptr %a, ptr %b, ptr %out, i64 %length)
  br label %one.done
one.done:
  %j.next = add i64 %j, 1
  br label %add
added:
  %done.next = add i64 %done, %length
  br label %chunk
end:
  ret void
}}

; Where the chunk of an array of an addition lies.
define internal ptr @now(ptr %arrays, ptr %addition, i64 %which) alwaysinline {{
  %number = call i64 @field(ptr %addition, i64 %which)
  %words = mul i64 %number, {OPERAND}
  %array = getelementptr i64, ptr %arrays, i64 %words
  %at = call i64 @field(ptr %array, i64 5)
  %place = inttoptr i64 %at to ptr
  ret ptr %place
}}

; Sums of messages that have all arrived.
define internal void @sums(ptr %table, i64 %number) {{
entry:
  %first.at = call i64 @field(ptr %table, i64 5)
  %first = inttoptr i64 %first.at to ptr
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %one ]
  %more = icmp ult i64 %i, %number
  br i1 %more, label %one, label %done
one:
  %words = mul i64 %i, {SUM}
  %sum = getelementptr i64, ptr %first, i64 %words
  call void @find(ptr %sum)
  call void @sum(ptr %sum)
  %next = add i64 %i, 1
  br label %head
done:
  ret void
}}
"""

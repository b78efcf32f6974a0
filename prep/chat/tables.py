r"""
The chat formats that are known, one table each.

    nanochat                  <|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>4<|assistant_end|>
    chatml                    <|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n
    qwen2.5                   the same, with a system turn always there; trained from the newline after `assistant` on
    qwen3                     the same without it; <think>\n\n</think>\n\n in every turn of the assistant's
    qwen3-stock               as Qwen publishes it: <think> only after the last question
    qwen3-instruct-2507       no <think>
    llama3                    <|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|>...
    llama3.1                  the same, with dates in the system turn, and calls

TRL's training templates say what of Qwen's and Llama 3's formats trains; ids and mask of 1,600 conversations agree with them
(tests/chat). For stock qwen3 and llama3.1, which come without a mask, the assistant's turns train from what they say to
their end.
"""

from dataclasses import replace

from prep.chat.format import Calls, ChatFormat, Inner, Reasoning, Results, Tools, Turn

NANOCHAT = ChatFormat(
    name="nanochat",
    authority="nanochat's tokenizer.render_conversation",
    example="<|bos|><|user_start|>2+2?<|user_end|><|assistant_start|>4<|assistant_end|>",
    controls=(
        *("<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>"),
        *("<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>"),
    ),
    turns={
        "user": Turn("<|user_start|>", closes="<|user_end|>"),
        "assistant": Turn("<|assistant_start|>", closes="<|assistant_end|>"),
    },
    bos="<|bos|>",
    alternates=True,
    inner={
        "python": Inner("<|python_start|>", "<|python_end|>"),
        "python_output": Inner("<|output_start|>", "<|output_end|>", trains=False),
    },
    texts_apart=True,
)

# ---- ChatML: the role is text ----

CHATML = ChatFormat(
    name="chatml",
    authority="OpenAI's ChatML; trained: what the assistant says, and <|im_end|> with its newline",
    example="<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n",
    controls=("<|im_start|>", "<|im_end|>"),
    turns={role: Turn(f"<|im_start|>{role}\n", closes="<|im_end|>\n") for role in ("system", "user", "assistant")},
)

QWEN_TOOLS = Tools(
    before="# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>",
    each=("\n", ""),
    after="\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>",
    between="\n\n",
)
QWEN3_2507 = replace(
    CHATML,
    name="qwen3-instruct-2507",
    authority="TRL's qwen3_instruct_2507_training.jinja (1.16)",
    calls=Calls('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", between="\n"),
    results=Results("<|im_start|>user", "\n<tool_response>\n", "\n</tool_response>", "<|im_end|>\n"),
    tools=QWEN_TOOLS,
)
QWEN3 = replace(
    QWEN3_2507,
    name="qwen3",
    authority="TRL's qwen3_training.jinja (1.16)",
    example="...<|im_start|>assistant\n<think>\n\n</think>\n\n4<|im_end|>\n",
    reasoning=Reasoning("<think>\n", "\n</think>\n\n"),
)
QWEN3_STOCK = replace(
    QWEN3,
    name="qwen3-stock",
    authority="Qwen3's own template; it has no mask: trained is what the assistant says, to the end of its turn",
    reasoning=Reasoning("<think>\n", "\n</think>\n\n", keep="after_last_user", when_empty="last"),
)
QWEN25 = replace(
    QWEN3_2507,
    name="qwen2.5",
    authority="TRL's qwen2_5_training.jinja (1.16)",
    example="<|im_start|>system\nYou are Qwen, ...<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4...",
    turns={**CHATML.turns, "assistant": Turn("<|im_start|>assistant", "\n", "<|im_end|>\n")},
    default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    calls=Calls('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", between="\n", strings="json"),
)

# ---- Llama 3 ----


def _llama_turn(role: str) -> Turn:
    return Turn(f"<|start_header_id|>{role}<|end_header_id|>\n\n", closes="<|eot_id|>", trim="strip")


LLAMA3 = ChatFormat(
    name="llama3",
    authority="TRL's llama3_training.jinja (1.16)",
    example="<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n2+2?<|eot_id|>...",
    controls=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    turns={role: _llama_turn(role) for role in ("system", "user", "assistant")},
    bos="<|begin_of_text|>",
)
LLAMA31 = replace(
    LLAMA3,
    name="llama3.1",
    authority="Llama 3.1's own template; it has no mask: trained is what the assistant says, to the end of its turn",
    default_system="",
    system_prefix="Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n",
    calls=Calls('{"name": "', '", "parameters": ', "}", strings="json", most=1, beside_text=False),
    results=Results("", "<|start_header_id|>ipython<|end_header_id|>\n\n", "<|eot_id|>", "", as_json=True),
    tools=Tools(
        before="Given the following functions, please respond with a JSON for a function call with its proper arguments that "
        'best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": dictionary of argument '
        "name and its value}.Do not use variables.\n\n",
        each=("", "\n\n"),
        into="user",
        indent=4,
        announce="Environment: ipython\n",
    ),
    date="26 Jul 2024",
)

FORMATS = {each.name: each for each in (NANOCHAT, CHATML, QWEN25, QWEN3, QWEN3_STOCK, QWEN3_2507, LLAMA3, LLAMA31)}

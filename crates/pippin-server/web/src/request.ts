// What is sent for an answer.

import { before, type Conversation, type Message } from "./tree";

/** The body of a request for this answer: all that stands before it, and what the conversation is set up with. */
export function requestFor(conversation: Conversation, answer: Message, continues: boolean): Record<string, unknown> {
  const path = before(conversation, answer);
  // Thoughts count until the question they were about is answered; templates drop older ones anyhow.
  const lastQuestion = path.findLastIndex((message) => message.role === "user");
  const messages: unknown[] = path.map((message, index) => wire(message, index > lastQuestion));
  if (conversation.system.trim()) messages.unshift({ role: "system", content: conversation.system });
  const body: Record<string, unknown> = { model: conversation.model, messages, ...conversation.parameters };
  if (continues) {
    messages.push({ role: "assistant", content: answer.content });
    body["continue_final_message"] = true;
    body["add_generation_prompt"] = false;
  }
  const { thinking } = conversation;
  if (thinking === "on") body["chat_template_kwargs"] = { enable_thinking: true };
  else if (thinking) body["reasoning_effort"] = thinking === "off" ? "none" : thinking;
  const tools = readTools(conversation.tools);
  if (tools.length > 0) body["tools"] = tools;
  return body;
}

function wire(message: Message, withThoughts: boolean): Record<string, unknown> {
  if (message.role === "tool") {
    return { role: "tool", tool_call_id: message.toolCallId ?? "", content: message.content };
  }
  const wire: Record<string, unknown> = { role: message.role, content: message.content };
  if (message.reasoning && withThoughts) wire["reasoning_content"] = message.reasoning;
  if (message.toolCalls?.length) {
    wire["tool_calls"] = message.toolCalls.map((call) => ({
      id: call.id,
      type: "function",
      function: { name: call.name, arguments: call.arguments },
    }));
  }
  return wire;
}

/** The tools of a text. Throws where it is no list of objects. */
export function readTools(text: string): unknown[] {
  if (!text.trim()) return [];
  const value: unknown = JSON.parse(text);
  const isList = Array.isArray(value) && value.every((tool) => typeof tool === "object" && tool !== null);
  if (!isList) throw new Error("a JSON list of tools is needed, as in the OpenAI API");
  return value;
}

//! Between the words of cases and those of whoever runs a plugin: the host's and the contract's have the same names and fields.

/// Makes the functions that take cases' words to a set of words of the same names, and back.
///
/// The names are those in scope: `Attribute`, `BlobRef`, `Certificate`, `ChatRequest`, `Content`, `Context`, `Decision`, `Flag`,
/// `LookupError`, `Message`, `Origin`, `Outcome`, `Parameters`, `Part`, `Piece`, `Principal`, `Refusal`, `RefusalKind`,
/// `RequestHead`, `Role`, `Step`, `ToolCall`, `ToolSpec`, `Verdict`; and three functions for where the sets differ:
/// `address` (from [`IpAddr`](std::net::IpAddr)), `parameters` (from [`Parameters`](crate::Parameters)) and `refusal_kind` (to
/// [`RefusalKind`](crate::RefusalKind)).
#[macro_export]
macro_rules! convert_words {
    () => {
        pub(super) fn head(from: &$crate::Head) -> RequestHead {
            let peer_cert = from.peer_cert.as_ref().map(|cert| Certificate {
                fingerprint: cert.fingerprint.clone(),
                subject: cert.subject.clone(),
                dns_names: cert.dns_names.clone(),
            });
            RequestHead {
                method: from.method.clone(),
                path: from.path.clone(),
                headers: from.headers.clone(),
                client_ip: address(from.client_ip),
                listener: from.listener.clone(),
                peer_cert,
            }
        }

        pub(super) fn context(from: &$crate::Context) -> Context {
            Context {
                request_id: from.request_id.clone(),
                received_at_ms: from.received_at_ms,
                deadline_ms: from.deadline_ms,
                listener: from.listener.clone(),
                dialect: from.dialect.clone(),
                route: from.route.clone(),
                principal: principal(from.principal.clone()),
                model: from.model.clone(),
                is_stream: from.is_stream,
                conversation: from.conversation.clone(),
                attributes: attributes(from.attributes.clone()),
            }
        }

        pub(super) fn lookup(from: Result<$crate::Principal, $crate::LookupError>) -> Result<Principal, LookupError> {
            from.map(principal).map_err(|error| match error {
                $crate::LookupError::Unknown => LookupError::Unknown,
                $crate::LookupError::Expired(at_ms) => LookupError::Expired(at_ms),
                $crate::LookupError::Revoked => LookupError::Revoked,
                $crate::LookupError::Unavailable => LookupError::Unavailable,
            })
        }

        fn principal(from: $crate::Principal) -> Principal {
            let $crate::Principal { id, tenant, roles, scopes, models, default_model, attributes: list } = from;
            Principal { id, tenant, roles, scopes, models, default_model, attributes: attributes(list) }
        }

        fn principal_back(from: Principal) -> $crate::Principal {
            let Principal { id, tenant, roles, scopes, models, default_model, attributes } = from;
            $crate::Principal { id, tenant, roles, scopes, models, default_model, attributes: attributes_back(attributes) }
        }

        fn attributes(list: Vec<$crate::Attribute>) -> Vec<Attribute> {
            list.into_iter().map(|from| Attribute { name: from.name, value: from.value.to_string() }).collect()
        }

        fn attributes_back(list: Vec<Attribute>) -> Vec<$crate::Attribute> {
            list.into_iter().map(|from| $crate::Attribute::from_text(from.name, &from.value)).collect()
        }

        pub(super) fn request(from: &$crate::Request) -> ChatRequest {
            let tools = from.tools.iter().map(|tool| ToolSpec {
                name: tool.name.clone(),
                description: tool.description.clone(),
                parameters: tool.parameters.to_string(),
            });
            ChatRequest {
                messages: from.messages.iter().map(message).collect(),
                tools: tools.collect(),
                parameters: parameters(from.parameters.clone()),
                format: from.format.as_ref().map(ToString::to_string),
                model: from.model.clone(),
                fields: attributes(from.fields.clone()),
            }
        }

        pub(super) fn request_back(from: ChatRequest) -> $crate::Request {
            let tools = from.tools.into_iter().map(|tool| $crate::Tool {
                parameters: $crate::Attribute::from_text(String::new(), &tool.parameters).value,
                name: tool.name,
                description: tool.description,
            });
            let Parameters { max_tokens, temperature, top_p, top_k, min_p, seed, stop, .. } = from.parameters;
            let Parameters { frequency_penalty, presence_penalty, repeat_penalty, .. } = from.parameters;
            $crate::Request {
                messages: from.messages.into_iter().map(message_back).collect(),
                tools: tools.collect(),
                parameters: $crate::Parameters {
                    max_tokens,
                    temperature,
                    top_p,
                    top_k,
                    min_p,
                    frequency_penalty,
                    presence_penalty,
                    repeat_penalty,
                    seed,
                    stop,
                },
                format: from.format.map(|text| $crate::Attribute::from_text(String::new(), &text).value),
                model: from.model,
                fields: attributes_back(from.fields),
            }
        }

        fn message(from: &$crate::Message) -> Message {
            let role = match from.role {
                $crate::Role::System => Role::System,
                $crate::Role::User => Role::User,
                $crate::Role::Assistant => Role::Assistant,
                $crate::Role::Tool => Role::Tool,
            };
            let call = |call: &$crate::ToolCall| ToolCall {
                id: call.id.clone(),
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            };
            Message {
                role,
                name: from.name.clone(),
                parts: from.parts.iter().map(part).collect(),
                tool_calls: from.tool_calls.iter().map(call).collect(),
                tool_call_id: from.tool_call_id.clone(),
            }
        }

        fn part(from: &$crate::Part) -> Part {
            let origin = match from.origin {
                $crate::Origin::User => Origin::User,
                $crate::Origin::History => Origin::History,
                $crate::Origin::Retrieved => Origin::Retrieved,
                $crate::Origin::Template => Origin::Template,
            };
            let content = match &from.content {
                $crate::Content::Text(text) => Content::Text(text.clone()),
                $crate::Content::Blob(blob) => {
                    Content::Blob(BlobRef { media_type: blob.media_type.clone(), size: blob.size, sha256: blob.sha256.clone() })
                }
            };
            Part { origin, content }
        }

        fn message_back(from: Message) -> $crate::Message {
            let role = match from.role {
                Role::System => $crate::Role::System,
                Role::User => $crate::Role::User,
                Role::Assistant => $crate::Role::Assistant,
                Role::Tool => $crate::Role::Tool,
            };
            let call = |ToolCall { id, name, arguments }: ToolCall| $crate::ToolCall { id, name, arguments };
            $crate::Message {
                role,
                name: from.name,
                parts: from.parts.into_iter().map(part_back).collect(),
                tool_calls: from.tool_calls.into_iter().map(call).collect(),
                tool_call_id: from.tool_call_id,
            }
        }

        fn part_back(from: Part) -> $crate::Part {
            let origin = match from.origin {
                Origin::User => $crate::Origin::User,
                Origin::History => $crate::Origin::History,
                Origin::Retrieved => $crate::Origin::Retrieved,
                Origin::Template => $crate::Origin::Template,
            };
            let content = match from.content {
                Content::Text(text) => $crate::Content::Text(text),
                Content::Blob(BlobRef { media_type, size, sha256 }) => {
                    $crate::Content::Blob($crate::Blob { media_type, size, sha256 })
                }
            };
            $crate::Part { origin, content }
        }

        pub(super) fn decision(from: Decision) -> $crate::Decision {
            match from {
                Decision::Identity(who) => $crate::Decision::Identity(principal_back(who)),
                Decision::Refuse(said) => $crate::Decision::Refuse(refusal(said)),
                Decision::Abstain => $crate::Decision::Abstain,
            }
        }

        pub(super) fn outcome(from: Outcome) -> $crate::Outcome {
            let verdict = match from.verdict {
                Verdict::Pass => $crate::PromptVerdict::Pass,
                Verdict::Replace(request) => {
                    $crate::PromptVerdict::Replace(Box::new(request_back(*Box::<ChatRequest>::from(request))))
                }
                Verdict::Block(said) => $crate::PromptVerdict::Block(refusal(said)),
                Verdict::Answer(text) => $crate::PromptVerdict::Answer(text),
            };
            $crate::Outcome { verdict, flags: flags(from.flags) }
        }

        pub(super) fn refusal(from: Refusal) -> $crate::Refusal {
            $crate::Refusal {
                kind: refusal_kind(from.kind),
                code: from.code,
                message: from.message,
                detail: from.detail,
                retry_after: from.retry_after,
            }
        }

        pub(super) fn piece(from: &$crate::Piece) -> Piece {
            match from.clone() {
                $crate::Piece::Text(text) => Piece::Text(text),
                $crate::Piece::Reasoning(text) => Piece::Reasoning(text),
                $crate::Piece::ToolName(text) => Piece::ToolName(text),
                $crate::Piece::ToolArguments(text) => Piece::ToolArguments(text),
            }
        }

        pub(super) fn step(from: Step) -> $crate::Step {
            let piece_back = |piece: Piece| match piece {
                Piece::Text(text) => $crate::Piece::Text(text),
                Piece::Reasoning(text) => $crate::Piece::Reasoning(text),
                Piece::ToolName(text) => $crate::Piece::ToolName(text),
                Piece::ToolArguments(text) => $crate::Piece::ToolArguments(text),
            };
            $crate::Step {
                release: from.release.into_iter().map(piece_back).collect(),
                flags: flags(from.flags),
                cut: from.cut.map(refusal),
            }
        }

        fn flags(list: Vec<Flag>) -> Vec<$crate::Flag> {
            list.into_iter().map(|flag| $crate::Flag { name: flag.name, count: flag.count }).collect()
        }
    };
}

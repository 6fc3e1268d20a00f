//! The OpenAPI document, made of the table and of the schemas of govern's types.

use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr,
    Required, Response, ResponseBuilder, ResponsesBuilder,
};

use super::table::{Gives, Method, Route, Shape};

/// The document as JSON.
pub(super) fn document(routes: &[Route]) -> String {
    let mut paths = PathsBuilder::new();
    let mut schemas = vec![("Error".to_owned(), RefOr::T(error()))];
    for route in routes {
        let shapes = [route.takes, shape_of(&route.gives)];
        shapes.into_iter().flatten().for_each(|shape| (shape.collect)(&mut schemas));
        let method = match route.method() {
            Method::Get => HttpMethod::Get,
            Method::Post => HttpMethod::Post,
            Method::Patch => HttpMethod::Patch,
            Method::Delete => HttpMethod::Delete,
        };
        // Operations of one path are put together.
        paths = paths.path(route.path(), PathItem::new(method, operation(route)));
    }
    let mut components = Components::new();
    components.schemas.extend(schemas);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.security_schemes.insert("key".to_owned(), RefOr::T(SecurityScheme::Http(bearer)));
    let info = InfoBuilder::new()
        .title("Hearth: admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Who may use what, and what it costs."));
    let document = OpenApiBuilder::new()
        .info(info.build())
        .paths(paths.build())
        .components(Some(components))
        .security(Some([SecurityRequirement::new("key", Vec::<String>::new())]))
        .build();
    document.to_json().expect("the document is plain data")
}

fn shape_of(gives: &Gives) -> Option<Shape> {
    match gives {
        Gives::One(shape) | Gives::List(shape) => Some(*shape),
        Gives::Object | Gives::Text(_) => None,
    }
}

fn operation(route: &Route) -> Operation {
    let place = route.place().text();
    let description = format!("Needs the permission `{}` at {place}.", route.permission().name());
    let group = route.path().split('/').nth(3).unwrap_or_default();
    let mut operation = OperationBuilder::new()
        .tag(group)
        .summary(Some(route.summary()))
        .description(Some(description))
        .operation_id(Some(operation_id(route)))
        .responses(responses(route).build());
    if route.path().contains("{id}") {
        operation = operation.parameter(parameter("id", "The thing's id.", ParameterIn::Path));
    }
    for (name, doc) in route.query() {
        operation = operation.parameter(parameter(name, doc, ParameterIn::Query));
    }
    if route.method() == Method::Post {
        let doc = "The request is done once, however often it is sent within 24 hours.";
        operation = operation.parameter(parameter("Idempotency-Key", doc, ParameterIn::Header));
    }
    if let Some(shape) = &route.takes {
        let content = ContentBuilder::new().schema(Some(reference(shape))).build();
        let body = RequestBodyBuilder::new()
            .content("application/json", content)
            .required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    operation.build()
}

fn operation_id(route: &Route) -> String {
    let words = route.path().split(['/', '.']).skip(3).filter(|word| !word.is_empty());
    let words: Vec<&str> = words.map(|word| if word == "{id}" { "one" } else { word }).collect();
    format!("{}_{}", route.method().name().to_lowercase(), words.join("_"))
}

fn parameter(name: &str, doc: &str, place: ParameterIn) -> Parameter {
    let required =
        if matches!(place, ParameterIn::Path) { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .description(Some(doc))
        .parameter_in(place)
        .required(required)
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}

fn reference(shape: &Shape) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name((shape.name)()))
}

fn responses(route: &Route) -> ResponsesBuilder {
    let status = if route.made { "201" } else { "200" };
    let (kind, schema) = match &route.gives {
        Gives::One(shape) => ("application/json", reference(shape)),
        Gives::List(shape) => ("application/json", RefOr::T(list(shape))),
        Gives::Object => ("application/json", RefOr::T(ObjectBuilder::new().build().into())),
        Gives::Text(kind) => {
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            (*kind, RefOr::T(text.into()))
        }
    };
    let done = ResponseBuilder::new()
        .description("Done")
        .content(kind, ContentBuilder::new().schema(Some(schema)).build());
    let mut responses = ResponsesBuilder::new().response(status, done.build());
    for (status, doc) in [
        ("400", "A field is wrong; `param` names it"),
        ("401", "No key, or none that is good"),
        ("403", "The permission is lacking"),
        ("404", "There is no such thing, or it is not the caller's to see"),
        ("409", "Something that is there stands in the way"),
    ] {
        responses = responses.response(status, failure(doc));
    }
    responses
}

fn failure(doc: &str) -> Response {
    let error = RefOr::<Schema>::Ref(Ref::from_schema_name("Error"));
    let content = ContentBuilder::new().schema(Some(error)).build();
    ResponseBuilder::new().description(doc).content("application/json", content).build()
}

fn list(shape: &Shape) -> Schema {
    let texts =
        |text: &'static str| ObjectBuilder::new().schema_type(Type::String).description(Some(text));
    ObjectBuilder::new()
        .property("object", texts("`list`"))
        .property("data", ArrayBuilder::new().items(reference(shape)))
        .property("has_more", ObjectBuilder::new().schema_type(Type::Boolean))
        .property("last_id", texts("What to send as `after` for the next page"))
        .required("data")
        .required("has_more")
        .into()
}

fn error() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let inner = ObjectBuilder::new()
        .property("message", text())
        .property("type", text())
        .property("param", text())
        .property("code", text())
        .required("message");
    ObjectBuilder::new().property("error", inner).required("error").into()
}

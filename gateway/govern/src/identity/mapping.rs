//! What the claims of verified tokens mean here: a service's project, a person's account, teams and
//! roles. Pure: it reads a directory and says what is to be changed; whether a token is genuine was
//! decided before (`jwt`).
//!
//! Nothing leads out of the organisation that a mapping names, whatever a token says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::Principal;
use super::jwt::{Claims, Issuer, text};
use crate::directory::Directory;
use crate::entity::{Entity, Grant, Organisation, User};
use crate::{Denied, Id, Millis, Rule, Scope};

/// Most groups of a person that are looked at.
const GROUPS_MAX: usize = 1024;
/// Longest address, as SMTP has it, and longest name.
const EMAIL_BYTES_MAX: usize = 254;
const NAME_CHARS_MAX: usize = 128;

/// What the claims of services mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// Where all of them belong.
    pub organisation: Id,
    /// On which project their requests are booked.
    pub project: ProjectOf,
    /// How the user is found who acts through the service; `None`: nobody does.
    pub user: Option<UserOf>,
}

/// How a project is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProjectOf {
    /// It is always this one.
    One(Id),
    /// A claim holds its id.
    Claim(String),
    /// A claim holds one of these values.
    Table {
        /// The claim.
        claim: String,
        /// Project by value.
        projects: BTreeMap<String, Id>,
    },
}

/// How a user is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserOf {
    /// By `email`, where the issuer says that it is verified.
    Email,
    /// By `sub`, as the user's external id `ISSUER:SUB` has it.
    Subject,
}

/// What the claims of people mean who sign in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct People {
    /// Where all of them belong.
    pub organisation: Id,
    /// Whoever has an address in one of these domains gets an account at the first sign-in; `*` is
    /// every domain. Empty: accounts are made by administrators only.
    pub domains: Vec<String>,
    /// The provider gives out no address that it has not verified, though it may not say so.
    pub emails_are_verified: bool,
    /// The claim that lists a person's groups. Dots lead into objects.
    pub groups_claim: String,
    /// What groups mean.
    pub groups: Vec<GroupRule>,
}

/// What it means to be in a group. What such rules give they also take, from whoever is not in the
/// group any more; teams and roles that no rule names stay as administrators gave them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRule {
    /// Name of the group at the provider.
    pub group: String,
    /// Who is in it is in this team.
    pub team: Option<Id>,
    /// Who is in it has this role.
    pub grant: Option<Grant>,
}

/// Somebody whom a provider vouches for.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// The account as it is to be.
    pub user: User,
    /// The account as it was; `None` for a new one.
    pub before: Option<Arc<User>>,
}

/// A person's name at a provider, as it is kept.
#[must_use]
pub fn external_id(provider: &str, subject: &str) -> String {
    format!("{provider}:{subject}")
}

/// A claim by its name, or by a path with dots.
fn claim<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, part| value.get(part))
    })
}

/// The address that is vouched for, in small letters.
fn email(claims: &Claims, verified_anyway: bool) -> Option<String> {
    // Some write the truth as a text.
    let verified = claims.get("email_verified");
    let verified = verified.is_some_and(|value| *value == true || *value == "true");
    let email = text(claims, "email")?.trim().to_lowercase();
    let plain = |c: char| !c.is_whitespace() && !c.is_control();
    let whole = email.split_once('@').is_some_and(|(who, domain)| {
        !who.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    let fits = whole && email.len() <= EMAIL_BYTES_MAX && email.chars().all(plain);
    ((verified || verified_anyway) && fits).then_some(email)
}

fn users_of<'a>(
    directory: &'a Directory,
    organisation: &'a Id,
) -> impl Iterator<Item = &'a Arc<User>> {
    directory.users().filter(move |user| user.organisation == *organisation)
}

fn no_organisation() -> Denied {
    Denied::new(Rule::Permission, "the organisation of this issuer does not exist any more")
}

/// The principal of a service whose token says this. It has the grants of its user, if it has one.
///
/// # Errors
/// The token leads to no project, or the service may not come in from there or now.
pub fn service(
    directory: &Directory,
    issuer: &Issuer,
    claims: &Claims,
    source: Option<IpAddr>,
    now: Millis,
) -> Result<Principal, Denied> {
    let Services { organisation, project, user } = &issuer.services;
    let found = match project {
        ProjectOf::One(id) => directory.project(id),
        ProjectOf::Claim(name) => {
            let id = claim(claims, name).and_then(Value::as_str).and_then(Id::of);
            id.and_then(|id| directory.project(&id))
        }
        ProjectOf::Table { claim: name, projects } => {
            let value = claim(claims, name).and_then(Value::as_str);
            value.and_then(|value| projects.get(value)).and_then(|id| directory.project(id))
        }
    };
    let team = found.and_then(|project| directory.team(&project.team));
    let (Some(project), Some(team)) = (found, team.filter(|t| t.organisation == *organisation))
    else {
        let message = format!("what issuer '{}' says leads to no project", issuer.name);
        return Err(Denied::new(Rule::NoProject, message));
    };
    let user = match user {
        None => None,
        Some(UserOf::Email) => email(claims, false).and_then(|email| {
            users_of(directory, organisation).find(|u| u.email.eq_ignore_ascii_case(&email))
        }),
        Some(UserOf::Subject) => text(claims, "sub").and_then(|subject| {
            let external = external_id(&issuer.name, subject);
            users_of(directory, organisation).find(|u| u.external_id.as_ref() == Some(&external))
        }),
    };
    let organisation = directory.organisation(organisation).ok_or_else(no_organisation)?;
    let principal = Principal {
        organisation: Arc::clone(organisation),
        team: Some(Arc::clone(team)),
        project: Some(Arc::clone(project)),
        user: user.cloned(),
        key: None,
        grants: user.map(|user| user.grants.clone()).unwrap_or_default(),
    };
    principal.enter(source, now)
}

/// The account of a person whom a provider vouches for, as it is to be from now on.
///
/// # Errors
/// There is none and none is to be made, or it is disabled, or somebody else's.
pub fn person(
    directory: &Directory,
    provider: &str,
    people: &People,
    claims: &Claims,
    now: Millis,
) -> Result<Arrival, Denied> {
    let refuse = |message: String| Denied::new(Rule::Permission, message);
    let subject = text(claims, "sub").filter(|subject| (1..=255).contains(&subject.len()));
    let subject = subject.ok_or_else(|| refuse(format!("{provider} does not say who this is")))?;
    let external = external_id(provider, subject);
    let email = email(claims, people.emails_are_verified);
    directory.organisation(&people.organisation).ok_or_else(no_organisation)?;
    let all = || users_of(directory, &people.organisation);
    let known = all().find(|user| user.external_id.as_ref() == Some(&external));
    let of_email =
        email.as_ref().and_then(|email| all().find(|user| user.email.eq_ignore_ascii_case(email)));
    let before = match (known, of_email, &email) {
        (Some(known), _, _) => Some(known),
        (None, Some(user), _) if user.external_id.is_none() => Some(user),
        (None, Some(user), _) => {
            return Err(refuse(format!("{} is already somebody else's account", user.email)));
        }
        (None, None, Some(email)) if may_join(people, email) => None,
        (None, None, Some(email)) => {
            return Err(refuse(format!("{email} has no account here; ask an administrator")));
        }
        (None, None, None) => {
            return Err(refuse(format!("{provider} gives no verified address for this account")));
        }
    };
    if let Some(user) = before {
        if user.disabled {
            return Err(Denied::new(Rule::DisabledUser, format!("{} is disabled", user.email)));
        }
        if user.service {
            let message = format!("{} is a service account, which does not sign in", user.email);
            return Err(refuse(message));
        }
    }
    let mut user = before.map_or_else(
        || User {
            id: Id::new(User::KIND, now),
            organisation: people.organisation.clone(),
            created_at: now,
            ..User::default()
        },
        |user| User::clone(user),
    );
    user.external_id = Some(external);
    // An address that moved, unless it would be somebody else's.
    let taken = of_email.is_some_and(|other| other.id != user.id);
    if let Some(email) = email.filter(|_| !taken) {
        user.email = email;
    }
    if let Some(name) = text(claims, "name") {
        let plain = name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX);
        user.name = plain.collect::<String>().trim().to_owned();
    }
    place(directory, people, claims, &mut user);
    Ok(Arrival { user, before: before.cloned() })
}

fn may_join(people: &People, email: &str) -> bool {
    let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
    people.domains.iter().any(|own| own == "*" || own.eq_ignore_ascii_case(domain))
}

/// Puts a person into the teams of their groups, with the roles of their groups.
fn place(directory: &Directory, people: &People, claims: &Claims, user: &mut User) {
    let mut groups: Vec<&str> = match claim(claims, &people.groups_claim) {
        Some(Value::Array(groups)) => {
            groups.iter().take(GROUPS_MAX).filter_map(Value::as_str).collect()
        }
        Some(Value::String(one)) => vec![one.as_str()],
        _ => Vec::new(),
    };
    // What came by SCIM counts too, whether or not the token repeats it.
    let kept = groups_of(directory, user);
    groups.extend(kept.iter().map(String::as_str));
    follow(directory, &people.organisation, &people.groups, &groups, user);
}

/// The names of the groups that SCIM has put somebody into.
#[must_use]
pub fn groups_of(directory: &Directory, user: &User) -> Vec<String> {
    let ids = user.provisioned.iter().flat_map(|kept| &kept.groups);
    ids.filter_map(|id| directory.group(id)).map(|group| group.name.clone()).collect()
}

/// Gives somebody what rules say of their groups, and takes what they say of others.
pub fn follow(
    directory: &Directory,
    organisation: &Id,
    rules: &[GroupRule],
    groups: &[&str],
    user: &mut User,
) {
    let home = Scope::Organisation(organisation.clone());
    let (here, others): (Vec<&GroupRule>, Vec<&GroupRule>) =
        rules.iter().partition(|rule| groups.contains(&rule.group.as_str()));
    user.teams.retain(|team| !others.iter().any(|rule| rule.team.as_ref() == Some(team)));
    user.grants.retain(|grant| !others.iter().any(|rule| rule.grant.as_ref() == Some(grant)));
    for rule in here {
        let teams = rule.team.iter().filter(|team| {
            directory.team(team).is_some_and(|team| team.organisation == *organisation)
        });
        for team in teams {
            if !user.teams.contains(team) {
                user.teams.push(team.clone());
            }
        }
        for grant in rule.grant.iter().filter(|grant| directory.covers(&home, &grant.scope)) {
            if !user.grants.contains(grant) {
                user.grants.push(grant.clone());
            }
        }
    }
}

/// The person with this address who may sign in with a password: the only one of it, in the
/// organisation of that name where one is given.
#[must_use]
pub fn by_email(
    directory: &Directory,
    email: &str,
    organisation: Option<&str>,
) -> Option<Arc<User>> {
    let email = email.trim();
    let in_it = |user: &Arc<User>| {
        let home: Option<&Arc<Organisation>> = directory.organisation(&user.organisation);
        home.is_some_and(|home| organisation.is_none_or(|name| home.name == name))
    };
    let fits = |user: &&Arc<User>| {
        user.email.to_lowercase() == email.to_lowercase() && !user.service && in_it(user)
    };
    let mut found = directory.users().filter(fits);
    let first = found.next()?;
    found.next().is_none().then(|| Arc::clone(first))
}

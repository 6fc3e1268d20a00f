//! Configurations of models.
#![no_main]

hearth_fuzz::target!(hearth_fuzz::Seeds::ModelConfigs, hearth_fuzz::models::model_config);
